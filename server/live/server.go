package live

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/server/promjson"
	"github.com/strandline-db/strandline/shard/model"
)

// Paths that a Server answers.
const (
	PathLive   = "/api/v1/live"
	PathSSE    = "/api/v1/live/sse"
	PathStream = "/api/v1/metrics/stream" // the older form
)

// rounds is among how many ticks the heartbeats of all connections are spread.
const rounds = 50

// early is by how many ticks before it is due a heartbeat may go with other frames: a
// little more than the usual step, 1 s of 5.
const early = rounds / 4

// maxRequests is how many client messages are carried out at a time.
const maxRequests = 32

// Server holds the connections. It is safe for concurrent use.
type Server struct {
	hub     *qlive.Hub
	opts    *Options
	origins atomic.Pointer[[]string] // Options.Origins in force
	metrics *metrics
	ready   chan *conn // connections with something to send; never full
	working chan struct{}
	waits   chan struct{} // one for each subscription that waits for a write
	first   chan struct{} // told when a connection comes to none
	ctx     context.Context
	cancel  context.CancelFunc

	buffers, frames       sync.Pool
	writers, own, readers sync.WaitGroup
	mu                    struct {
		sync.Mutex
		closing bool
		count   int // of connections that exist or are being made
		next    int // bucket
		buckets [rounds]map[*conn]struct{}
		empty   chan struct{} // closed when closing and the last has gone
	}
}

// SetOrigins replaces Options.Origins, for the connections that come. Safe for concurrent use.
func (s *Server) SetOrigins(origins []string) {
	origins = slices.Clone(origins)
	s.origins.Store(&origins)
}

// New returns a Server over hub, which stays the caller's. The options are completed
// in place.
func New(hub *qlive.Hub, o *Options) (*Server, error) {
	o = o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer, hub)
	if err != nil {
		return nil, err
	}
	s := &Server{hub: hub, opts: o, metrics: m, ready: make(chan *conn, o.MaxConns), working: make(chan struct{}, maxRequests),
		waits: make(chan struct{}, maxWaiting), first: make(chan struct{}, 1)}
	s.SetOrigins(o.Origins)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.mu.empty = make(chan struct{})
	for i := range s.mu.buckets {
		s.mu.buckets[i] = map[*conn]struct{}{}
	}
	for range o.Writers {
		s.writers.Go(s.write)
	}
	s.writers.Go(s.tick)
	return s, nil
}

func (s *Server) write() {
	var w work
	for {
		select {
		case c := <-s.ready:
			c.state.Store(busy)
			c.turn(&w, false)
		case <-s.ctx.Done():
			return
		}
	}
}

// wait gives c a goroutine of its own until it has caught up or is cut.
func (s *Server) wait(c *conn) {
	s.metrics.slow.Inc()
	s.own.Go(func() {
		defer s.metrics.slow.Dec()
		c.turn(&work{}, true)
	})
}

// tick lets heartbeats go out, those of all connections spread over the time between
// two. A tick that comes late makes up for those that were lost. Without connections
// there are none.
func (s *Server) tick() {
	every := max(s.opts.Heartbeat/rounds, time.Millisecond)
	t := time.NewTicker(every)
	defer t.Stop()
	start := time.Now()
	var soon, due []*conn
	for done := int64(0); ; {
		next := t.C
		if s.idle() {
			t.Stop()
			next = nil
		}
		select {
		case <-next:
		case <-s.first:
			t.Reset(every)
			continue
		case <-s.ctx.Done():
			return
		}
		now := time.Now()
		until := int64(now.Sub(start) / every)
		s.mu.Lock()
		for done = max(done, until-rounds); done < until; done++ {
			for c := range s.mu.buckets[(done+early)%rounds] {
				soon = append(soon, c)
			}
			for c := range s.mu.buckets[done%rounds] {
				due = append(due, c)
			}
		}
		s.mu.Unlock()
		for _, c := range due {
			c.beat(now)
		}
		for _, c := range soon {
			c.offer()
		}
		clear(due)
		clear(soon)
		soon, due = soon[:0], due[:0]
	}
}

// idle tells whether there is no connection. The next one will be told to s.first.
func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.count == 0
}

// add makes a connection, which the caller then hijacks or abandons. It fails with
// errFull or model.ErrClosed.
func (s *Server) add(remote string, may func() bool) (*conn, error) {
	c := &conn{s: s, remote: remote, may: may, room: make(chan struct{}, 1)}
	c.wakeFn = c.wake
	c.out.pool = &s.buffers
	c.state.Store(busy)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.closing:
		return nil, model.ErrClosed
	case s.mu.count >= s.opts.MaxConns:
		return nil, errFull
	}
	if s.mu.count++; s.mu.count == 1 {
		select {
		case s.first <- struct{}{}:
		default: // tick has not looked since the last time
		}
	}
	c.bucket = s.mu.next
	s.mu.next = (s.mu.next + 1) % rounds
	s.mu.buckets[c.bucket][c] = struct{}{}
	return c, nil
}

func (s *Server) remove(c *conn) {
	if c.t != nil {
		s.metrics.conns.WithLabelValues(c.t.name()).Dec()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.buckets[c.bucket], c)
	if s.mu.count--; s.mu.closing && s.mu.count == 0 {
		close(s.mu.empty)
	}
}

// Close tells every client to go elsewhere and closes the connections; what has not
// gone when ctx ends is cut. It joins every goroutine and may be called again.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.mu.closing {
		s.mu.closing = true
		if s.mu.count == 0 {
			close(s.mu.empty)
		}
	}
	s.mu.Unlock()
	s.Drain("the server is stopping")
	var err error
	select {
	case <-s.mu.empty:
	case <-ctx.Done():
		err = ctx.Err()
		for _, c := range s.all() {
			c.kill()
		}
		<-s.mu.empty
	}
	s.readers.Wait()
	s.own.Wait()
	s.cancel()
	s.writers.Wait()
	return err
}

// Drain tells the clients of now to go elsewhere, for a reason, and closes their connections. It does
// not wait; those that come later are served.
func (s *Server) Drain(reason string) {
	for _, c := range s.all() {
		if !c.isClosing() {
			c.drain(reason)
		}
	}
}

func (s *Server) all() (list []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.mu.buckets {
		for c := range b {
			list = append(list, c)
		}
	}
	return list
}

// Handle answers the paths of live queries; false: the path is another.
func (s *Server) Handle(rc *fasthttp.RequestCtx) bool {
	switch string(rc.Path()) {
	case PathLive:
		s.webSocket(rc, false)
	case PathStream:
		s.webSocket(rc, true)
	case PathSSE:
		s.events(rc)
	default:
		return false
	}
	return true
}

// open makes a connection if the number of them allows; else it has answered.
func (s *Server) open(rc *fasthttp.RequestCtx) (*conn, bool) {
	c, err := s.add(rc.RemoteAddr().String(), s.opts.Access(rc))
	if err != nil {
		s.metrics.refused.WithLabelValues("full").Inc()
		rc.Response.Header.Set("Retry-After", "5")
		fail(rc, fasthttp.StatusServiceUnavailable, "unavailable", err)
		return nil, false
	}
	if !c.may() { // since the request was let in; whoever has changed that may not have seen the connection
		c.abandon(making)
		fail(rc, fasthttp.StatusUnauthorized, "unauthorized", errRevoked)
		return nil, false
	}
	return c, true
}

// Recheck closes the connections of those who may no longer have them. It is to be called
// after each change of what Options.Access tells, and does not wait.
func (s *Server) Recheck() {
	for _, c := range s.all() {
		if c.may() || c.isClosing() {
			continue
		}
		s.metrics.cut.WithLabelValues("revoked").Inc()
		s.opts.Audit.Warn("revoked", "remote", c.remote)
		c.reply(frame.Error, errorFrame("", nil, 0, errRevoked, true))
		c.close(closePolicy, errRevoked.Error())
	}
}

// hijack takes the connection out of fasthttp: what was gathered so far is the answer.
func (s *Server) hijack(rc *fasthttp.RequestCtx, c *conn) {
	s.metrics.conns.WithLabelValues(c.t.name()).Inc()
	if !c.advance(making) {
		fail(rc, fasthttp.StatusServiceUnavailable, "unavailable", model.ErrClosed)
		return
	}
	rc.HijackSetNoResponse(true)
	rc.Hijack(func(nc net.Conn) {
		if !c.advance(promised) || c.out.attach(nc) != nil || !c.advance(claimed) {
			c.abandon(promised, claimed)
			_ = nc.Close() // it is of no use
			return
		}
		c.release()
	})
}

// fail answers with the error envelope.
func fail(rc *fasthttp.RequestCtx, code int, kind string, err error) {
	rc.SetStatusCode(code)
	rc.SetContentType("application/json")
	b := append([]byte(`{"status":"error","errorType":"`), kind...)
	b = append(b, `","error":`...)
	b = promjson.AppendHTML(b, err.Error())
	rc.SetBody(append(b, '}'))
}

var errNotGet = errors.New("only GET is answered here")
