package cluster

import (
	"context"
	"errors"
	"maps"
	"net"
	"sync"
	"sync/atomic"
)

// memNetwork connects nodes inside the process. Links between two names can be cut.
type memNetwork struct {
	bytes atomic.Int64 // that went over it
	mu    struct {
		sync.Mutex
		listeners map[string]*memListener
		conns     map[*memConn]struct{}
		cut       map[string]bool    // addresses that are alone
		apart     map[[2]string]bool // pairs of addresses without a link, either way round
		holds     map[[2]string]*hold
	}
}

// hold keeps the requests of one address to another from being read, as a network or a
// process that stands still does, also beyond the end of the connection.
type hold struct {
	release chan struct{}  // closed when they may be read
	end     func()         // closes it
	unread  sync.WaitGroup // connections on which something is held, or has not been handled yet
}

func newMemNetwork() *memNetwork {
	n := &memNetwork{}
	n.mu.listeners = map[string]*memListener{}
	n.mu.conns = map[*memConn]struct{}{}
	n.mu.cut, n.mu.apart, n.mu.holds = map[string]bool{}, map[[2]string]bool{}, map[[2]string]*hold{}
	return n
}

// memHost is the network as one address sees it.
type memHost struct {
	n    *memNetwork
	addr string
}

type memListener struct {
	n     *memNetwork
	addr  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		delete(l.n.mu.listeners, l.addr)
	})
	return nil
}

func (l *memListener) Addr() net.Addr { return memAddr(l.addr) }

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

// memConn is one end; the two know each other's hosts.
type memConn struct {
	net.Conn
	n        *memNetwork
	from, to string
	accepted bool
	was      *hold // that the last read met
}

// Read implements net.Conn.
func (c *memConn) Read(b []byte) (int, error) {
	c.handled()
	n, err := c.Conn.Read(b)
	if c.accepted && n > 0 {
		if c.was = c.n.meets(c.to, c.from); c.was != nil {
			<-c.was.release
		}
	}
	return n, err
}

// handled notes that what the last read gave has been handled.
func (c *memConn) handled() {
	if c.was != nil {
		c.was.unread.Done()
		c.was = nil
	}
}

// meets returns the hold that what is sent now meets; nil if there is none.
func (n *memNetwork) meets(from, to string) *hold {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.mu.holds[[2]string{from, to}]
	if h != nil {
		h.unread.Add(1)
	}
	return h
}

// hold begins to hold the requests of one address to another.
func (n *memNetwork) hold(from, to string) *hold {
	h := &hold{release: make(chan struct{})}
	h.end = sync.OnceFunc(func() { close(h.release) })
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.holds[[2]string{from, to}] = h
	return h
}

// letGo ends a hold, and returns when what was held has been handled.
func (n *memNetwork) letGo(h *hold) {
	n.mu.Lock()
	maps.DeleteFunc(n.mu.holds, func(_ [2]string, x *hold) bool { return x == h })
	n.mu.Unlock()
	h.end()
	h.unread.Wait()
}

func (c *memConn) Write(b []byte) (int, error) {
	c.n.bytes.Add(int64(len(b)))
	return c.Conn.Write(b)
}

func (c *memConn) Close() error {
	c.n.mu.Lock()
	delete(c.n.mu.conns, c)
	c.n.mu.Unlock()
	return c.Conn.Close()
}

func (h memHost) Listen(addr string) (net.Listener, error) {
	l := &memListener{n: h.n, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	if h.n.mu.listeners[addr] != nil {
		return nil, errors.New("address in use")
	}
	h.n.mu.listeners[addr] = l
	return l, nil
}

func (h memHost) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	h.n.mu.Lock()
	l, cut := h.n.mu.listeners[addr], h.n.mu.cut[addr] || h.n.mu.cut[h.addr] || h.n.mu.apart[[2]string{addr, h.addr}]
	h.n.mu.Unlock()
	if l == nil || cut {
		return nil, errors.New("connection refused")
	}
	a, b := net.Pipe()
	ca, cb := &memConn{Conn: a, n: h.n, from: h.addr, to: addr}, &memConn{Conn: b, n: h.n, from: addr, to: h.addr, accepted: true}
	select {
	case l.conns <- cb:
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.n.mu.conns[ca], h.n.mu.conns[cb] = struct{}{}, struct{}{}
	return ca, nil
}

// isolate cuts or heals all links of an address.
func (n *memNetwork) isolate(addr string, cut bool) {
	n.mu.Lock()
	n.mu.cut[addr] = cut
	n.mu.Unlock()
	if cut {
		n.end(func(from, to string) bool { return from == addr || to == addr })
	}
}

// part cuts or heals the link between two addresses.
func (n *memNetwork) part(a, b string, cut bool) {
	n.mu.Lock()
	n.mu.apart[[2]string{a, b}], n.mu.apart[[2]string{b, a}] = cut, cut
	n.mu.Unlock()
	if cut {
		n.end(func(from, to string) bool { return from == a && to == b || from == b && to == a })
	}
}

// end ends connections.
func (n *memNetwork) end(which func(from, to string) bool) {
	n.mu.Lock()
	var ended []*memConn
	for c := range n.mu.conns {
		if which(c.from, c.to) {
			ended = append(ended, c)
		}
	}
	n.mu.Unlock()
	for _, c := range ended {
		_ = c.Close()
	}
}
