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
// there is no connection under it. Read is for one goroutine, flush for one.
type gather struct {
	conn  net.Conn
	raw   syscall.RawConn
	early []byte // what the client sent before the connection was ours
	pool  *sync.Pool
	room  int  // bytes that the socket takes for sure, as far as is known; flush's
	timed bool // a write deadline is set; flush's
	mu    struct {
		sync.Mutex
		out    *[]byte
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
	if tcp, ok := socket.Bottom(inner).(interface{ SetWriteBuffer(int) error }); ok {
		return tcp.SetWriteBuffer(sendBuffer)
	}
	return nil
}

// Write implements net.Conn; it never fails.
func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bufferLocked(p)
	return len(p), nil
}

func (g *gather) bufferLocked(p []byte) {
	if g.mu.out == nil {
		b, ok := g.pool.Get().(*[]byte)
		if !ok {
			b = new([]byte)
		}
		g.mu.out = b
	}
	*g.mu.out = append(*g.mu.out, p...)
}

// pending is how many bytes wait for flush.
func (g *gather) pending() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.out == nil {
		return 0
	}
	return len(*g.mu.out)
}

// takes reports whether the socket takes n bytes at once. It asks the system only when
// what was free at the last time may be used up.
func (g *gather) takes(n int) bool {
	if n > 2*chunk {
		return false
	}
	if n > g.room {
		if g.room = 0; !socket.Writable(g.raw) {
			return false
		}
		g.room = 2 * chunk // a third of the buffer is free, which the kernel doubled
	}
	return true
}

// flush writes what has gathered. With a timeout each piece may take that long; without
// one, the caller knows that the socket takes it.
func (g *gather) flush(timeout time.Duration) error {
	g.mu.Lock()
	out := g.mu.out
	g.mu.out = nil
	g.mu.Unlock()
	if out == nil {
		return nil
	}
	defer g.recycle(out)
	for b := *out; len(b) > 0; {
		if err := g.deadline(timeout); err != nil {
			return err
		}
		n := min(len(b), sendBuffer)
		if _, err := g.conn.Write(b[:n]); err != nil {
			return err
		}
		g.room -= n
		b = b[n:]
	}
	return nil
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

// cut closes the connection at once: TLS would wait to say so.
func (g *gather) cut() { _ = socket.Bottom(g.conn).Close() }

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
