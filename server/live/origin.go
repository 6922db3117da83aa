package live

import (
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
)

// maxLogged bounds what a client can put into the log.
const maxLogged = 256

// admit reports whether the page that a browser sends the request for may do so; if
// not, it has answered. Requests that name no origin come from no page.
func (s *Server) admit(rc *fasthttp.RequestCtx) bool {
	origin := string(rc.Request.Header.Peek("Origin"))
	if origin == "" || allows(*s.origins.Load(), origin, string(rc.Host())) {
		return true
	}
	s.metrics.refused.WithLabelValues("origin").Inc()
	s.opts.Audit.Warn("denied", "method", string(rc.Method()), "path", string(rc.Path()),
		"origin", origin[:min(len(origin), maxLogged)], "remote", rc.RemoteAddr().String())
	fail(rc, fasthttp.StatusForbidden, "forbidden", errOrigin)
	return false
}

// allows compares host and port with the request's own, since a proxy may speak
// another scheme, and scheme, host and port with the list.
func allows(origins []string, origin, host string) bool {
	if auth.OwnOrigin(origin, host) {
		return true
	}
	for _, a := range origins {
		if a == "*" || strings.EqualFold(strings.TrimSuffix(a, "/"), origin) {
			return true
		}
	}
	return false
}
