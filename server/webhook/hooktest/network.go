package hooktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

var errNoHost = errors.New("hooktest: no such host")

// Network is a resolver and a dialer that reach one handler, through pipes.
type Network struct {
	handler http.Handler
	server  http.Server
	conns   chan net.Conn
	closed  chan struct{}
	served  chan error
	mu      struct {
		sync.Mutex
		names  map[string][][]netip.Addr // answers, one after another; the last stays
		dialed []string
		got    []Delivery
	}
}

// Delivery is a request that came in.
type Delivery struct {
	At     time.Time
	Path   string
	Header http.Header
	Body   []byte
}

// NewNetwork returns a network on which each address answers by h.
func NewNetwork(h func(http.ResponseWriter, *http.Request)) *Network {
	n := &Network{handler: http.HandlerFunc(h), conns: make(chan net.Conn), closed: make(chan struct{}), served: make(chan error, 1)}
	n.mu.names = map[string][][]netip.Addr{}
	n.server.Handler = http.HandlerFunc(n.serve)
	go func() { n.served <- n.server.Serve(listener{n}) }()
	return n
}

func (n *Network) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	n.mu.got = append(n.mu.got, Delivery{time.Now(), r.URL.Path, r.Header.Clone(), body})
	n.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	n.handler.ServeHTTP(w, r)
}

// Name lets a name resolve to the answers, one lookup after another; the last one stays.
func (n *Network) Name(host string, answers ...[]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range answers {
		var addrs []netip.Addr
		for _, s := range a {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		n.mu.names[host] = append(n.mu.names[host], addrs)
	}
}

// LookupNetIP implements webhook.Resolver.
func (n *Network) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.mu.names[host]
	if len(list) == 0 {
		return nil, errNoHost
	}
	if len(list) > 1 {
		n.mu.names[host] = list[1:]
	}
	return list[0], nil
}

// DialContext implements webhook.Dialer.
func (n *Network) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.mu.dialed = append(n.mu.dialed, addr)
	n.mu.Unlock()
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Dialed returns the addresses that were dialed.
func (n *Network) Dialed() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.mu.dialed)
}

// Got returns the requests that came in.
func (n *Network) Got() []Delivery {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.mu.got)
}

// Close ends the server.
func (n *Network) Close() {
	close(n.closed)
	n.server.Close()
	<-n.served
}

type listener struct{ n *Network }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.n.conns:
		return c, nil
	case <-l.n.closed:
		return nil, net.ErrClosed
	}
}

func (listener) Close() error { return nil }

func (listener) Addr() net.Addr { return &net.TCPAddr{} }
