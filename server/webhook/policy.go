package webhook

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// maxURL is the longest URL, in bytes.
const maxURL = 2048

// Policy says which addresses a webhook may connect to: those that are public, and
// those in Allow. The zero value allows only public ones.
type Policy struct {
	Allow []netip.Prefix
}

// refused are the networks that are not public: this host, private, shared by carriers,
// link-local (where clouds serve their metadata), documentation, benchmarks, multicast and
// reserved. Of IPv6 also those that carry an IPv4 address inside, since a gateway would
// lead it on. IANA's special-purpose address registries.
func refused() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// globalV6 is the only part of IPv6 that is given out as public.
func globalV6() netip.Prefix { return netip.MustParsePrefix("2000::/3") }

// ParseAllow reads a network, such as 10.1.0.0/16 or fd00::/8, or a single address.
func ParseAllow(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is not a network such as 10.1.0.0/16", s)
	}
	if p.Addr().Is4In6() {
		return p, fmt.Errorf("%q: write the IPv4 network as such", s)
	}
	return p.Masked(), nil
}

// Permit returns ErrForbiddenAddress if a webhook may not connect to the address.
func (p *Policy) Permit(a netip.Addr) error {
	if a.Zone() != "" || !a.IsValid() {
		return ErrForbiddenAddress
	}
	a = a.Unmap()
	for _, ok := range p.Allow {
		if ok.Contains(a) {
			return nil
		}
	}
	if a.Is6() && !globalV6().Contains(a) {
		return ErrForbiddenAddress
	}
	for _, no := range refused() {
		if no.Contains(a) {
			return ErrForbiddenAddress
		}
	}
	return nil
}

// Check reads a webhook's URL. An address written out is judged at once; a name is
// when it is resolved, for each delivery anew. The errors wrap ErrBadURL or ErrForbiddenAddress.
func (p *Policy) Check(raw string) (*url.URL, error) {
	bad := func(why string) (*url.URL, error) { return nil, fmt.Errorf("%w: %s", ErrBadURL, why) }
	if raw == "" || len(raw) > maxURL {
		return bad("it is empty or longer than 2048 bytes")
	}
	for _, c := range []byte(raw) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return bad("it has a character that must be escaped")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return bad("it can't be read")
	}
	host := u.Hostname()
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("it must begin with http:// or https://")
	case u.User != nil:
		return bad("it must hold no credentials")
	case u.Opaque != "" || host == "":
		return bad("it has no host")
	case u.Fragment != "" || strings.Contains(raw, "#"):
		return bad("it must have no fragment")
	case strings.ContainsAny(host, "%_ "):
		return bad("its host has a zone or an odd character")
	}
	if _, port, found := strings.Cut(strings.TrimPrefix(u.Host, "["+host+"]"), ":"); found {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return bad("its port is not between 1 and 65535")
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if err := p.Permit(a); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// Origin returns scheme, host and port of a URL: what may be shown of it.
func Origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return u.Scheme + "://" + host + ":" + port
}
