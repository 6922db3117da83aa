package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/pprofhandler"

	"github.com/strandline-db/strandline/server/auth"
)

// route is what is known of a request's path.
type route struct {
	name string    // in metrics: few, whatever is asked for
	role auth.Role // "": everybody
}

// Names of routes: those whose answers go on until someone leaves, and those of probes.
const (
	routeLive   = "live"
	routeHealth = "health"
)

// routeOf places a path. What is not listed is for admin, so that a new route is
// closed until it is.
func routeOf(method, path string) route {
	switch {
	case path == "/api/v1/alerts/subscribe" || strings.HasPrefix(path, "/api/v1/alerts/subscribe/"):
		// Who subscribes makes this server evaluate for ever, and connect to where they say.
		if method != fasthttp.MethodGet {
			return route{"alerts", auth.Admin}
		}
		return route{"alerts", auth.Read}
	case path == "/-/healthy" || path == "/-/ready":
		return route{routeHealth, ""}
	case path == "/metrics":
		return route{"metrics", auth.Read}
	case path == "/api/v1/write":
		return route{"write", auth.Write}
	case strings.HasPrefix(path, "/api/v1/admin/"):
		return route{"admin", auth.Admin}
	case path == "/api/v1/query" || path == "/api/v1/query_range":
		return route{strings.TrimPrefix(path, "/api/v1/"), auth.Read}
	case path == "/api/v1/metrics/realtime" || path == "/api/v1/metrics/historical":
		return route{"dashboard", auth.Read}
	case path == "/api/v1/live" || path == "/api/v1/live/sse" || path == "/api/v1/metrics/stream":
		return route{routeLive, auth.Read}
	case strings.HasPrefix(path, "/api/v1/"):
		return route{"api", auth.Read}
	}
	if strings.HasPrefix(path, "/debug/pprof/") {
		return route{"pprof", auth.Admin}
	}
	return route{"other", auth.Admin}
}

func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	path := string(ctx.Path())
	r := routeOf(string(ctx.Method()), path)
	defer func() {
		if p := recover(); p != nil {
			s.o.Logger.Error("handler panicked", "path", path, "panic", p)
			ctx.Response.Reset()
			fail(ctx, 500, "internal", "internal error")
		}
		s.metrics.observe(r.name, ctx.Response.StatusCode(), time.Since(ctx.Time()))
	}()
	if s.addressed(ctx, path, r) && s.ownPage(ctx, path, r) && s.permit(ctx, path, r) {
		s.dispatch(ctx, path)
	}
}

// permit reports whether the caller has the role; if not, it has answered.
func (s *Server) permit(ctx *fasthttp.RequestCtx, path string, r route) bool {
	a, need := s.auth.Load(), r.role
	if a == nil || need == "" {
		return true
	}
	id, err := a.Identify(credentials(ctx, r))
	if err == nil && id.Role.Allows(need) {
		if r.name == routeLive {
			ctx.SetUserValue(caller{}, id)
		}
		if need == auth.Admin {
			s.o.Audit.Info("admin", "method", string(ctx.Method()), "path", path, "name", id.Name, "remote", ctx.RemoteAddr().String())
		}
		return true
	}
	s.o.Audit.Warn("denied", "method", string(ctx.Method()), "path", path, "name", id.Name, "remote", ctx.RemoteAddr().String())
	if err == nil {
		fail(ctx, 403, "forbidden", "this needs the role "+string(need))
		return false
	}
	fail(ctx, 401, "unauthorized", "credentials are missing or wrong")
	ctx.Response.Header.Set("WWW-Authenticate", `Basic realm="strandline"`)
	return false
}

// credentials returns what the caller shows: the Authorization header or, for want of
// one on a WebSocket, what is among the subprotocols.
func credentials(ctx *fasthttp.RequestCtx, r route) string {
	h := &ctx.Request.Header
	if shown := h.Peek("Authorization"); len(shown) > 0 || r.name != routeLive || !strings.EqualFold(string(h.Peek("Upgrade")), "websocket") {
		return string(shown)
	}
	var protocols []string
	for _, p := range h.PeekAll("Sec-WebSocket-Protocol") {
		protocols = append(protocols, string(p))
	}
	return auth.Authorization(protocols)
}

// caller is the key of the user value that holds who asks, on routes that go on.
type caller struct{}

// Access returns a function that tells whether who sent the request to a live route may
// still do so, under the access rules of that moment. The function outlives the request
// and is safe for concurrent use.
func (s *Server) Access(ctx *fasthttp.RequestCtx) func() bool {
	id, _ := ctx.UserValue(caller{}).(auth.Identity)
	return func() bool {
		a := s.auth.Load()
		return a == nil || a.Holds(id, auth.Read)
	}
}

func (s *Server) dispatch(ctx *fasthttp.RequestCtx, path string) {
	look := ctx.IsGet() || ctx.IsHead()
	h := s.mounted.Load()
	switch {
	case path == "/-/healthy" && look:
		ctx.SetBodyString("healthy\n")
	case path == "/metrics" && look && s.o.Metrics != nil:
		s.o.Metrics(ctx)
	case strings.HasPrefix(path, "/debug/pprof/") && look:
		if path == "/debug/pprof/" { // whose list is under any name but this
			ctx.URI().SetPath(path + "index")
		}
		pprofhandler.PprofHandler(ctx)
	case path == "/-/ready" && look && h != nil:
		if err := s.ready(); err != nil {
			fail(ctx, 503, "unavailable", "not ready: "+err.Error())
			ctx.Response.Header.Set("Retry-After", "1")
			return
		}
		ctx.SetBodyString("ready\n")
	case h == nil && (path == "/-/ready" || strings.HasPrefix(path, "/api/v1/")):
		fail(ctx, 503, "unavailable", "not ready: "+s.waits())
		ctx.Response.Header.Set("Retry-After", "1")
	case path == "/api/v1/write":
		h.ingest.Handle(ctx)
	case strings.HasPrefix(path, "/api/v1/") && h.handle(ctx):
	default:
		fail(ctx, 404, "not_found", "no such path")
	}
}

func (s *Server) ready() error {
	if s.o.Ready == nil {
		return nil
	}
	return s.o.Ready()
}

// waits says why the server is not mounted.
func (s *Server) waits() string {
	if s.o.Waits != nil {
		if why := s.o.Waits(); why != "" {
			return "starting; " + why
		}
	}
	return "starting or stopping"
}

// fail answers with the error envelope; its arguments need no JSON escapes.
func fail(ctx *fasthttp.RequestCtx, code int, kind, msg string) {
	ctx.SetStatusCode(code)
	ctx.SetContentType("application/json")
	fmt.Fprintf(ctx, `{"status":"error","errorType":%q,"error":%q}`, kind, msg)
}
