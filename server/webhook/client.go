package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// maxAnswer is how much of an answer's body is read.
const maxAnswer = 4 << 10

// Resolver finds the addresses of a name; *net.Resolver is one. Called concurrently.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer connects to an address; *net.Dialer is one. Called concurrently.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// client posts to targets under a policy.
type client struct {
	policy   Policy
	resolver Resolver
	dialer   Dialer
	http     *http.Client
	now      func() time.Time
}

func newClient(o *Options) *client {
	c := &client{policy: o.Policy, resolver: o.Resolver, dialer: o.Dialer, now: o.Clock.Now}
	c.http = &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:             nil,  // the environment's would see what is sent, and choose the address
			DisableKeepAlives: true, // each delivery resolves and checks anew
			DialContext:       c.dial, TLSClientConfig: o.TLS, TLSHandshakeTimeout: o.Timeout, ResponseHeaderTimeout: o.Timeout,
			DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
		},
	}
	return c
}

// dial connects to a host that it resolves once: every address must be permitted, and it is
// one of these that it connects to.
func (c *client) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	addrs, err := c.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if err := c.policy.Permit(a); err != nil {
			return nil, err
		}
	}
	var errs []error
	for _, a := range addrs[:min(4, len(addrs))] {
		conn, err := c.dialer.DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (c *client) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	addrs, err := c.resolver.LookupNetIP(ctx, "ip", host)
	if err == nil && len(addrs) == 0 {
		err = ErrNoAddress
	}
	return addrs, err
}

// statusError is an answer that is not 2xx.
type statusError struct {
	code       int
	retryAfter time.Duration // 0: not said
}

func (e *statusError) Error() string { return fmt.Sprintf("%s %d", ErrStatus, e.code) }

// Unwrap makes errors.Is(err, ErrStatus) true.
func (e *statusError) Unwrap() error { return ErrStatus }

// post delivers once; nil means 2xx. Errors hold no more of the URL than its host.
func (c *client) post(ctx context.Context, t *Target, id string, body []byte) error {
	u, err := c.policy.Check(t.URL)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return ErrBadURL
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "strandline")
	req.Header.Set(HeaderDelivery, id)
	if t.Secret != "" {
		req.Header.Set(HeaderSignature, Sign(t.Secret, body, c.now()))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL
		}
		return err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, maxAnswer)
	if resp.StatusCode/100 == 2 {
		return nil
	}
	e := &statusError{code: resp.StatusCode}
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		e.retryAfter = time.Duration(n) * time.Second
	}
	return e
}

func defaultTLS() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS12} }
