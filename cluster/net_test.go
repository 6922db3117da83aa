package cluster

import (
	"context"
	"errors"
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
	}
}

func newMemNetwork() *memNetwork {
	n := &memNetwork{}
	n.mu.listeners = map[string]*memListener{}
	n.mu.conns = map[*memConn]struct{}{}
	n.mu.cut, n.mu.apart = map[string]bool{}, map[[2]string]bool{}
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
	ca, cb := &memConn{a, h.n, h.addr, addr}, &memConn{b, h.n, addr, h.addr}
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
