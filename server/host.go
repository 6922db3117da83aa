package server

import (
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
)

// maxLogged bounds what a client can put into the log.
const maxLogged = 256

// addressed reports whether the request asks for this server by a name that it goes by; if
// not, it has answered. A page elsewhere may have its own name point here (DNS
// rebinding): a browser then takes this server for the page's own, and the header
// Host alone tells. It can't be an address, since a page's is a name.
func (s *Server) addressed(ctx *fasthttp.RequestCtx, path string, r route) bool {
	hosts := *s.hosts.Load()
	if len(hosts) == 0 || r.name == routeHealth {
		return true
	}
	host := string(ctx.Host())
	if answersTo(hosts, host) {
		return true
	}
	s.o.Audit.Warn("denied", "method", string(ctx.Method()), "path", path, "host", host[:min(len(host), maxLogged)], "remote", ctx.RemoteAddr().String())
	fail(ctx, fasthttp.StatusMisdirectedRequest, "forbidden", "this server is not asked by that name; list it in the setting hosts if it should be")
	return false
}

// answersTo compares without the port, which a proxy may change.
func answersTo(hosts []string, host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || host == "localhost" {
		return true
	}
	for _, h := range hosts {
		if strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

// ownPage reports whether no page of another site makes a browser change something here; if
// one does, it has answered. The browser sends the user's credentials along, and where
// there are none it reaches what listens on loopback. What only reads is for browsers
// to keep from the page; live queries have an allow-list of their own.
func (s *Server) ownPage(ctx *fasthttp.RequestCtx, path string, r route) bool {
	origin := string(ctx.Request.Header.Peek("Origin"))
	if origin == "" || r.role != auth.Admin && r.role != auth.Write || ctx.IsGet() || ctx.IsHead() || ctx.IsOptions() {
		return true
	}
	if auth.OwnOrigin(origin, string(ctx.Host())) {
		return true
	}
	s.o.Audit.Warn("denied", "method", string(ctx.Method()), "path", path, "origin", origin[:min(len(origin), maxLogged)], "remote", ctx.RemoteAddr().String())
	fail(ctx, fasthttp.StatusForbidden, "forbidden", "requests of pages from elsewhere are refused; behind a proxy, pass on the header Host")
	return false
}
