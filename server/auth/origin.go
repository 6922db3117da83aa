package auth

import (
	"net/url"
	"strings"
)

// OwnOrigin reports whether a page of the origin, as the header of that name has it, is one of
// the host that it asks, which is in the header Host. The scheme is not compared, since a
// proxy may speak another one.
func OwnOrigin(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(withoutDefault(u.Scheme, u.Host), withoutDefault(u.Scheme, host))
}

// CanonicalOrigin returns the origin of a URL as browsers write it.
func CanonicalOrigin(u *url.URL) string {
	scheme := strings.ToLower(u.Scheme)
	return scheme + "://" + strings.ToLower(withoutDefault(scheme, u.Host))
}

// withoutDefault leaves out the scheme's default port, as browsers do and proxies may not.
func withoutDefault(scheme, host string) string {
	switch scheme {
	case "http":
		return strings.TrimSuffix(host, ":80")
	case "https":
		return strings.TrimSuffix(host, ":443")
	}
	return host
}
