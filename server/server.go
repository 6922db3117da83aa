package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
)

// Ingest takes remote-write requests. Handle is called concurrently.
type Ingest interface{ Handle(*fasthttp.RequestCtx) }

// API answers some paths below /api/v1/; Handle reports false for a path it does not
// know. It is called concurrently.
type API interface {
	Handle(*fasthttp.RequestCtx) bool
}

// handlers are what a storage brings.
type handlers struct {
	ingest Ingest
	apis   []API
}

// handle asks one after the other, and reports whether one knew the path.
func (h *handlers) handle(ctx *fasthttp.RequestCtx) bool {
	for _, a := range h.apis {
		if a.Handle(ctx) {
			return true
		}
	}
	return false
}

// Server is the HTTP server.
type Server struct {
	o       Options
	http    *fasthttp.Server
	metrics *metrics
	mounted atomic.Pointer[handlers]
	auth    atomic.Pointer[auth.Authenticator] // nil: everyone is admin
	hosts   atomic.Pointer[[]string]           // Options.Hosts in force
	exposed atomic.Bool                        // listening beyond loopback, and not allowed to without protection
}

// New checks the options and builds a Server, which answers 503 until Mount.
func New(o *Options) (*Server, error) {
	s := &Server{}
	if o != nil {
		s.o = *o
	}
	s.o.EnsureDefaults()
	if err := s.o.Validate(); err != nil {
		return nil, err
	}
	var err error
	if s.metrics, err = newMetrics(s.o.Registerer); err != nil {
		return nil, err
	}
	s.auth.Store(s.o.Auth)
	s.SetHosts(s.o.Hosts)
	s.http = &fasthttp.Server{
		Handler: s.handle, NoDefaultServerHeader: true, CloseOnShutdown: true,
		MaxRequestBodySize: s.o.MaxBody, Concurrency: s.o.MaxConns, ReadBufferSize: 16 << 10,
		KeepHijackedConns: true, // live connections outlive their handler
		// What is wrong with a request's head is logged without the head: it holds credentials.
		SecureErrorLogMessage: true,
		ReadTimeout:           30 * time.Second, WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
		Logger: quiet{s.o.Logger}, ErrorHandler: unread(s.o.MaxBody),
	}
	return s, nil
}

// unread returns what answers a request that could not be read. One that was slow may be a write,
// and its sender drops for ever what is answered 4xx, 408 too: it is told to try again.
func unread(maxBody int) func(*fasthttp.RequestCtx, error) {
	return func(ctx *fasthttp.RequestCtx, err error) {
		var head *fasthttp.ErrSmallBuffer
		var late net.Error
		switch {
		case errors.Is(err, fasthttp.ErrBodyTooLarge):
			fail(ctx, fasthttp.StatusRequestEntityTooLarge, "bad_data", fmt.Sprintf("the body is larger than %d bytes: see max-body-bytes", maxBody))
		case errors.As(err, &head):
			fail(ctx, fasthttp.StatusRequestHeaderFieldsTooLarge, "bad_data", "the request's head is too large; send long parameters as a form in the body")
		case errors.As(err, &late) && late.Timeout(): // its path is forgotten by now
			fail(ctx, fasthttp.StatusServiceUnavailable, "unavailable", "the request did not come in time")
			ctx.Response.Header.Set("Retry-After", "1")
		default:
			fail(ctx, fasthttp.StatusBadRequest, "bad_data", "this is not a request as HTTP/1.1 has it")
		}
	}
}

// quiet takes what fasthttp says of broken connections: of use only when looking for it.
type quiet struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (q quiet) Printf(format string, args ...any) { q.log.Debug(fmt.Sprintf(format, args...)) }

// Mount gives the server its handlers: it is ready from now on. The first of apis
// that knows a path answers it.
func (s *Server) Mount(i Ingest, apis ...API) { s.mounted.Store(&handlers{i, apis}) }

// Unmount takes the handlers away: new requests get 503. Those that run go on.
func (s *Server) Unmount() { s.mounted.Store(nil) }

// SetAuth replaces the access rules; nil makes everyone admin. It fails with
// ErrOpenListener, and changes nothing, if that would leave an open listener
// unprotected. Connections that go on are for their handlers to look at: see Access. Safe
// for concurrent use.
func (s *Server) SetAuth(a *auth.Authenticator) error {
	if a == nil && s.exposed.Load() {
		return ErrOpenListener
	}
	s.auth.Store(a)
	return nil
}

// SetHosts replaces Options.Hosts, for the requests that come. Safe for concurrent use.
func (s *Server) SetHosts(names []string) {
	names = slices.Clone(names)
	s.hosts.Store(&names)
}

// Permit returns ErrOpenListener when addr is open to others and nothing protects
// it. Serve asks it too; calling it before spares a start.
func (s *Server) Permit(addr net.Addr) error {
	tcp, ok := addr.(*net.TCPAddr)
	if ok && !tcp.IP.IsLoopback() && !s.o.Insecure {
		s.exposed.Store(true)
		if s.o.TLS == nil || s.auth.Load() == nil {
			return ErrOpenListener
		}
	}
	return nil
}

// Serve answers on ln until Shutdown. It fails with ErrOpenListener where Permit does.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.Permit(ln.Addr()); err != nil {
		return err
	}
	ln = newPatient(ln, s.o.Logger)
	if s.o.TLS != nil {
		ln = tls.NewListener(ln, s.o.TLS)
	}
	return s.http.Serve(ln)
}

// Shutdown stops listening and waits for running requests until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.ShutdownWithContext(ctx) }
