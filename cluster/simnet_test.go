package cluster

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// simNet is a network on virtual time, with what TCP makes of a bad one: bytes come late
// or, while a direction is cut, not at all; between the connections of a pair, and
// between pairs, order is what the delays make of it; a connection that is reset loses
// what was on its way. It waits on channels and timers alone, so that it can run in a
// testing/synctest bubble.
type simNet struct {
	deliver func(from, to string, frame []byte) // sees every write as it arrives
	mu      struct {
		sync.Mutex
		rng       *rand.Rand
		listeners map[string]*simListener
		down      map[string]bool // hosts without power: nobody answers at all
		cut       map[[2]string]bool
		slow      map[[2]string]time.Duration // added to each delay of a direction, at most
		lossy     map[[2]string]bool          // some writes come after a retransmission
		ends      map[*simConn]struct{}
		changed   chan struct{} // closed when a direction is cut or mended
	}
}

const (
	simDelay      = 2 * time.Millisecond   // at most, on a sound network
	simRetransmit = 200 * time.Millisecond // at least, after a loss
)

func newSimNet(rng *rand.Rand, deliver func(from, to string, frame []byte)) *simNet {
	n := &simNet{deliver: deliver}
	n.mu.rng = rng
	n.mu.listeners, n.mu.down, n.mu.cut = map[string]*simListener{}, map[string]bool{}, map[[2]string]bool{}
	n.mu.slow, n.mu.lossy, n.mu.ends = map[[2]string]time.Duration{}, map[[2]string]bool{}, map[*simConn]struct{}{}
	n.mu.changed = make(chan struct{})
	return n
}

// change alters the network under its lock and wakes who waits for a change.
func (n *simNet) change(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
	close(n.mu.changed)
	n.mu.changed = make(chan struct{})
}

// simProc is the network as one process of a host sees it, until the process ends.
type simProc struct {
	n    *simNet
	addr string
	mu   struct {
		sync.Mutex
		ended bool
		conns []*simConn
	}
}

// end takes the process off the network: with reset its peers hear of it at once,
// otherwise (no power) never.
func (p *simProc) end(reset bool) {
	p.mu.Lock()
	p.mu.ended = true
	conns := p.mu.conns
	p.mu.conns = nil
	p.mu.Unlock()
	p.n.change(func() {
		delete(p.n.mu.listeners, p.addr)
		p.n.mu.down[p.addr] = !reset
	})
	for _, c := range conns {
		c.shut(reset)
	}
}

func (p *simProc) adopt(c *simConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.ended {
		return false
	}
	p.mu.conns = append(p.mu.conns, c)
	return true
}

// Listen implements Network.
func (p *simProc) Listen(addr string) (net.Listener, error) {
	l := &simListener{p: p, conns: make(chan net.Conn, 64), done: make(chan struct{})}
	p.n.change(func() { p.n.mu.listeners[addr], p.n.mu.down[addr] = l, false })
	return l, nil
}

// Dial implements Network. A host without power, or behind a cut, does not answer.
func (p *simProc) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	for {
		p.n.mu.Lock()
		l, changed := p.n.mu.listeners[addr], p.n.mu.changed
		silent := p.n.mu.down[addr] || p.n.mu.cut[[2]string{p.addr, addr}] || p.n.mu.cut[[2]string{addr, p.addr}]
		wait := p.n.delayLocked(p.addr, addr) + p.n.delayLocked(addr, p.addr)
		p.n.mu.Unlock()
		if !silent {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			if l == nil {
				return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
			}
			return p.connect(l, addr)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (p *simProc) connect(l *simListener, addr string) (net.Conn, error) {
	a, b := newSimConn(p.n, p.addr, addr), newSimConn(p.n, addr, p.addr)
	a.peer, b.peer = b, a
	if !p.adopt(a) || !l.p.adopt(b) {
		return nil, syscall.ECONNRESET
	}
	select {
	case l.conns <- b:
		return a, nil
	default:
		return nil, syscall.ECONNREFUSED
	}
}

// delayLocked draws how long what is sent now takes.
func (n *simNet) delayLocked(from, to string) time.Duration {
	dir := [2]string{from, to}
	d := time.Duration(n.mu.rng.Int64N(int64(simDelay)))
	if s := n.mu.slow[dir]; s > 0 {
		d += time.Duration(n.mu.rng.Int64N(int64(s)))
	}
	if n.mu.lossy[dir] && n.mu.rng.IntN(10) == 0 {
		d += simRetransmit + time.Duration(n.mu.rng.Int64N(int64(simRetransmit)))
	}
	return d
}

type simListener struct {
	p     *simProc
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *simListener) Addr() net.Addr { return memAddr(l.p.addr) }

// simConn is one end of a connection.
type simConn struct {
	n        *simNet
	from, to string
	peer     *simConn
	done     chan struct{}
	once     sync.Once
	wake     chan struct{} // capacity 1: something arrived in the queue
	mu       struct {
		sync.Mutex
		queue    []simChunk // from the peer, in order
		last     time.Time
		deadline time.Time
	}
}

// simChunk is what one write sent, or the end of the stream.
type simChunk struct {
	at   time.Time
	data []byte
	seen bool
	err  error
}

func newSimConn(n *simNet, from, to string) *simConn {
	return &simConn{n: n, from: from, to: to, done: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// Write implements net.Conn. It never blocks.
func (c *simConn) Write(b []byte) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
	}
	c.peer.arrive(simChunk{data: append([]byte(nil), b...)})
	return len(b), nil
}

// arrive puts a chunk of the peer's behind what is on its way.
func (c *simConn) arrive(x simChunk) {
	c.n.mu.Lock()
	d := c.n.delayLocked(c.to, c.from)
	c.n.mu.Unlock()
	c.mu.Lock()
	if x.at = time.Now().Add(d); x.at.Before(c.mu.last) {
		x.at = c.mu.last
	}
	c.mu.last = x.at
	c.mu.queue = append(c.mu.queue, x)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Read implements net.Conn.
func (c *simConn) Read(b []byte) (int, error) {
	for {
		c.n.mu.Lock()
		cut, changed := c.n.mu.cut[[2]string{c.to, c.from}], c.n.mu.changed
		c.n.mu.Unlock()
		n, wait, err := c.take(b, cut)
		if n > 0 || err != nil {
			return n, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-c.wake:
		case <-changed:
		case <-c.done:
		}
		t.Stop()
	}
}

// take returns what has arrived, or how long to wait.
func (c *simConn) take(b []byte, cut bool) (int, time.Duration, error) {
	select {
	case <-c.done:
		return 0, 0, net.ErrClosed
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, wait := time.Now(), time.Hour
	if d := c.mu.deadline; !d.IsZero() {
		if wait = d.Sub(now); wait <= 0 {
			return 0, 0, os.ErrDeadlineExceeded
		}
	}
	if cut || len(c.mu.queue) == 0 {
		return 0, wait, nil
	}
	x := &c.mu.queue[0]
	if d := x.at.Sub(now); d > 0 {
		return 0, min(d, wait), nil
	}
	if x.err != nil {
		return 0, 0, x.err
	}
	if !x.seen && c.n.deliver != nil {
		x.seen = true
		c.n.deliver(c.to, c.from, x.data)
	}
	n := copy(b, x.data)
	if x.data = x.data[n:]; len(x.data) == 0 {
		c.mu.queue = c.mu.queue[1:]
	}
	return n, 0, nil
}

// shut ends this end; the peer hears of it, behind what is on its way, unless silent.
func (c *simConn) shut(tell bool) {
	c.once.Do(func() {
		close(c.done)
		if tell {
			c.peer.arrive(simChunk{err: io.EOF})
		}
	})
}

// Close implements net.Conn.
func (c *simConn) Close() error { c.shut(true); return nil }

// LocalAddr implements net.Conn.
func (c *simConn) LocalAddr() net.Addr { return memAddr(c.from) }

// RemoteAddr implements net.Conn.
func (c *simConn) RemoteAddr() net.Addr { return memAddr(c.to) }

// SetReadDeadline implements net.Conn.
func (c *simConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.deadline = t
	return nil
}

// SetDeadline implements net.Conn: only reads wait.
func (c *simConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *simConn) SetWriteDeadline(time.Time) error { return nil }
