package server

import (
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"
)

// addressed reports whether the request asks for this server by a name that it goes by; if
// not, it has answered. A page elsewhere may have its own name point here (DNS
// rebinding): a browser then takes this server for the page's own, and the header
// Host alone tells. It can't be an address, since a page's is a name.
func (s *Server) addressed(ctx *fasthttp.RequestCtx, path string, r route) bool {
	if len(s.o.Hosts) == 0 || r.name == routeHealth {
		return true
	}
	host := string(ctx.Host())
	if answersTo(s.o.Hosts, host) {
		return true
	}
	const most = 256 // of what a client can put into the log
	s.o.Audit.Warn("denied", "method", string(ctx.Method()), "path", path, "host", host[:min(len(host), most)], "remote", ctx.RemoteAddr().String())
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
