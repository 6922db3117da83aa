package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
)

// Errors of this package.
var (
	// ErrBadOptions: a required handler is missing.
	ErrBadOptions = errors.New("bad server options")
	// ErrOpenListener: listening beyond loopback without TLS and authentication.
	ErrOpenListener = errors.New("refusing to listen beyond loopback without TLS and authentication: configure both, listen on 127.0.0.1, or pass --insecure")
)

// Ingest takes remote-write requests. Handle is called concurrently.
type Ingest interface{ Handle(*fasthttp.RequestCtx) }

// API answers the query API; Handle reports false for a path it does not know.
// It is called concurrently.
type API interface {
	Handle(*fasthttp.RequestCtx) bool
}

// Options of a Server. Ingest and API are required.
type Options struct {
	Ingest Ingest
	API    API
	Ready  func() error        // nil: always ready
	Auth   *auth.Authenticator // nil: everyone is admin
	TLS    *tls.Config         // nil: plain HTTP
	// Insecure permits listening beyond loopback without TLS and Auth.
	Insecure      bool
	Logger, Audit *slog.Logger // nil: discard
	MaxBody       int          // bytes; default 32 MiB
	MaxConns      int          // default 4096
}

// Server is the HTTP server.
type Server struct {
	o    Options
	http *fasthttp.Server
}

// New checks the options and builds a Server.
func New(o Options) (*Server, error) {
	if o.Ingest == nil || o.API == nil {
		return nil, fmt.Errorf("%w: Ingest and API are required", ErrBadOptions)
	}
	discard := slog.New(slog.NewTextHandler(io.Discard, nil))
	if o.Logger == nil {
		o.Logger = discard
	}
	if o.Audit == nil {
		o.Audit = discard
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 32 << 20
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 4096
	}
	s := &Server{o: o}
	s.http = &fasthttp.Server{
		Handler: s.handle, NoDefaultServerHeader: true, CloseOnShutdown: true,
		MaxRequestBodySize: o.MaxBody, Concurrency: o.MaxConns, ReadBufferSize: 16 << 10,
		ReadTimeout: 30 * time.Second, WriteTimeout: 5 * time.Minute, IdleTimeout: 2 * time.Minute,
	}
	return s, nil
}

// Serve answers on ln until Shutdown. It fails with ErrOpenListener when ln is
// open to others and nothing protects it.
func (s *Server) Serve(ln net.Listener) error {
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if ok && !tcp.IP.IsLoopback() && !s.o.Insecure && (s.o.TLS == nil || s.o.Auth == nil) {
		return ErrOpenListener
	}
	if s.o.TLS != nil {
		ln = tls.NewListener(ln, s.o.TLS)
	}
	return s.http.Serve(ln)
}

// Shutdown stops listening and waits for running requests until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.ShutdownWithContext(ctx) }

func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	defer func() {
		if p := recover(); p != nil {
			s.o.Logger.Error("handler panicked", "path", string(ctx.Path()), "panic", p)
			ctx.Response.Reset()
			fail(ctx, 500, "internal", "internal error")
		}
	}()
	path := string(ctx.Path())
	need := roleOf(path)
	if s.o.Auth != nil && need != "" {
		id, err := s.o.Auth.Identify(string(ctx.Request.Header.Peek("Authorization")))
		if err != nil || !id.Role.Allows(need) {
			s.o.Audit.Warn("denied", "path", path, "name", id.Name, "remote", ctx.RemoteAddr().String())
			if err == nil {
				fail(ctx, 403, "forbidden", "this needs the role "+string(need))
				return
			}
			fail(ctx, 401, "unauthorized", "credentials are missing or wrong")
			ctx.Response.Header.Set("WWW-Authenticate", `Basic realm="strandline"`)
			return
		}
	}
	s.route(ctx, path)
}

func (s *Server) route(ctx *fasthttp.RequestCtx, path string) {
	switch {
	case path == "/api/v1/write":
		s.o.Ingest.Handle(ctx)
	case path == "/-/healthy" && (ctx.IsGet() || ctx.IsHead()):
		ctx.SetBodyString("healthy\n")
	case path == "/-/ready" && (ctx.IsGet() || ctx.IsHead()):
		if s.o.Ready != nil && s.o.Ready() != nil {
			fail(ctx, 503, "unavailable", "not ready: the log is being replayed")
			return
		}
		ctx.SetBodyString("ready\n")
	case strings.HasPrefix(path, "/api/v1/") && s.o.API.Handle(ctx):
	default:
		fail(ctx, 404, "not_found", "no such path")
	}
}

// roleOf names the role that a path needs: none for the health checks, and
// admin for what is not listed, so that a new route is closed until it is.
func roleOf(path string) auth.Role {
	switch {
	case path == "/-/healthy" || path == "/-/ready":
		return ""
	case path == "/api/v1/write":
		return auth.Write
	case strings.HasPrefix(path, "/api/v1/admin/"):
		return auth.Admin
	case strings.HasPrefix(path, "/api/v1/"):
		return auth.Read
	}
	return auth.Admin
}

// fail answers with the error envelope; its arguments need no JSON escapes.
func fail(ctx *fasthttp.RequestCtx, code int, kind, msg string) {
	ctx.SetStatusCode(code)
	ctx.SetContentType("application/json")
	fmt.Fprintf(ctx, `{"status":"error","errorType":%q,"error":%q}`, kind, msg)
}
