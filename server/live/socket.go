package live

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/strandline-db/strandline/server/socket"
)

const (
	// chunk is about how much is gathered before it is written.
	chunk = 16 << 10
	// sendBuffer is the kernel's buffer for a client: small, since what lies in it a
	// slow reader gets late. The kernel doubles it.
	sendBuffer = 64 << 10
	// lingerTime is how long a client may take to answer a close.
	lingerTime = time.Second
)

// gather is a net.Conn that keeps what is written to it until flush. Before attach
// there is no connection under it. Read is for one goroutine, flush and try for one.
type gather struct {
	conn   net.Conn
	raw    syscall.RawConn
	direct bool   // what is written to conn goes to raw as it is: there is no TLS between
	early  []byte // what the client sent before the connection was ours
	pool   *sync.Pool
	// The writer's: what it is sending, how much of it has gone, and whether a write
	// deadline is set.
	sending *[]byte
	sent    int
	timed   bool
	mu      struct {
		sync.Mutex
		out    *[]byte
		over   bool // the goodbye is among what was written
		linger bool // the read deadline is set for good
	}
}

// attach takes the connection out of fasthttp's wrapper, whose 16 KiB buffer would
// otherwise stay with it: what that holds is read first, without waiting.
func (g *gather) attach(nc net.Conn) error {
	inner := nc
	if w, ok := nc.(interface{ UnsafeConn() net.Conn }); ok {
		inner = w.UnsafeConn()
		if err := inner.SetReadDeadline(time.Unix(1, 0)); err != nil {
			return err
		}
		var buf [512]byte
		for len(g.early) < chunk {
			n, err := nc.Read(buf[:])
			g.early = append(g.early, buf[:n]...)
			if err != nil { // there is no more for now, or the next read says what
				break
			}
		}
	}
	g.conn, g.raw, g.timed = inner, socket.Raw(inner), true // fasthttp's deadline
	_, wrapped := inner.(interface{ NetConn() net.Conn })
	g.direct = g.raw != nil && !wrapped
	if tcp, ok := socket.Bottom(inner).(interface{ SetWriteBuffer(int) error }); ok {
		return tcp.SetWriteBuffer(sendBuffer)
	}
	return nil
}

// Write implements net.Conn; it never fails.
func (g *gather) Write(p []byte) (int, error) {
	g.join(nil, p)
	return len(p), nil
}

// join writes a head and what it is of, with nothing between.
func (g *gather) join(head, p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bufferLocked(head)
	g.bufferLocked(p)
}

// last writes a goodbye. Nothing comes after it.
func (g *gather) last(p []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bufferLocked(p)
	g.mu.over = true
}

func (g *gather) bufferLocked(p []byte) {
	if g.mu.over || len(p) == 0 {
		return
	}
	if g.mu.out == nil {
		b, ok := g.pool.Get().(*[]byte)
		if !ok {
			b = new([]byte)
		}
		g.mu.out = b
	}
	*g.mu.out = append(*g.mu.out, p...)
}

// pending is how many bytes wait for flush or try. It is the writer's.
func (g *gather) pending() int {
	n := 0
	if g.sending != nil {
		n = len(*g.sending) - g.sent
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.out != nil {
		n += len(*g.mu.out)
	}
	return n
}

// load returns what is to be sent next.
func (g *gather) load() []byte {
	if g.sending == nil {
		g.mu.Lock()
		g.sending, g.mu.out = g.mu.out, nil
		g.mu.Unlock()
		if g.sending == nil {
			return nil
		}
	}
	return (*g.sending)[g.sent:]
}

// wrote notes that n bytes of it have gone.
func (g *gather) wrote(n int) {
	if g.sent += n; g.sending != nil && g.sent == len(*g.sending) {
		g.recycle(g.sending)
		g.sending, g.sent = nil, 0
	}
}

// try writes what the socket takes at once, and reports whether that was all. It never
// waits.
func (g *gather) try(send *socket.Sender) (n int, all bool, err error) {
	b := g.load()
	if len(b) == 0 {
		return 0, true, nil
	}
	if err := g.deadline(0); err != nil {
		return 0, false, err
	}
	switch {
	case g.direct:
		n, err = send.TryWrite(g.raw, b)
	case len(b) <= 2*chunk && socket.Writable(g.raw): // a third of the buffer is free, which the kernel doubled
		n, err = g.conn.Write(b)
	}
	g.wrote(n)
	return n, n == len(b), err
}

// discard forgets what has gathered.
func (g *gather) discard() {
	for b := g.load(); len(b) > 0; b = g.load() {
		g.wrote(len(b))
	}
}

// flush writes a piece of what has gathered, which may take as long as timeout. all: there
// was none. The piece is so small that a socket which takes anything takes it whole.
func (g *gather) flush(timeout time.Duration) (n int, all bool, err error) {
	b := g.load()
	if len(b) == 0 {
		return 0, true, nil
	}
	if err := g.deadline(timeout); err != nil {
		return 0, false, err
	}
	n, err = g.conn.Write(b[:min(len(b), chunk)])
	g.wrote(n)
	return n, false, err
}

func (g *gather) deadline(timeout time.Duration) error {
	if timeout == 0 && !g.timed {
		return nil
	}
	if g.timed = timeout > 0; !g.timed {
		return g.conn.SetWriteDeadline(time.Time{})
	}
	return g.conn.SetWriteDeadline(time.Now().Add(timeout))
}

func (g *gather) recycle(b *[]byte) {
	if cap(*b) <= 4*chunk {
		*b = (*b)[:0]
		g.pool.Put(b)
	}
}

// Read implements net.Conn.
func (g *gather) Read(p []byte) (int, error) {
	if len(g.early) > 0 {
		n := copy(p, g.early)
		if g.early = g.early[n:]; len(g.early) == 0 {
			g.early = nil
		}
		return n, nil
	}
	return g.conn.Read(p)
}

// expect lets the client be silent for d from now.
func (g *gather) expect(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.mu.linger {
		_ = g.conn.SetReadDeadline(time.Now().Add(d)) // fails on a closed one, as the read then does
	}
}

// lingerOn gives the client a last moment to say goodbye.
func (g *gather) lingerOn() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.linger = true
	_ = g.conn.SetReadDeadline(time.Now().Add(lingerTime))
}

// cut closes the connection at once, by a reset: TLS would wait to say so, and the kernel
// for a client that never reads to take what it has, minutes or for ever.
func (g *gather) cut() {
	bottom := socket.Bottom(g.conn)
	if tcp, ok := bottom.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // fails on a closed one
	}
	_ = bottom.Close()
}

// Close implements net.Conn.
func (g *gather) Close() error {
	if g.conn == nil {
		return nil
	}
	return g.conn.Close()
}

// LocalAddr implements net.Conn.
func (g *gather) LocalAddr() net.Addr { return g.conn.LocalAddr() }

// RemoteAddr implements net.Conn.
func (g *gather) RemoteAddr() net.Addr { return g.conn.RemoteAddr() }

// SetDeadline, SetReadDeadline and SetWriteDeadline implement net.Conn: deadlines are
// for flush and expect to set.
func (g *gather) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (g *gather) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (g *gather) SetWriteDeadline(time.Time) error { return nil }
