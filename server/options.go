package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
)

// Options of a Server. Nil and zero values mean the defaults named here.
type Options struct {
	Auth *auth.Authenticator // nil: everyone is admin
	TLS  *tls.Config         // nil: plain HTTP
	// Insecure permits listening beyond loopback without TLS and Auth.
	Insecure bool
	// Hosts are the names, besides localhost and addresses, by which requests may name this
	// server. Empty: any.
	Hosts []string
	// Ready returns nil when a mounted server may get traffic. Nil: it always may.
	Ready func() error
	// Waits says what the start waits for of a server that is not mounted yet; empty if for
	// nothing in particular. Nil: it never does.
	Waits func() string
	// Metrics answers /metrics. Nil: there is none.
	Metrics fasthttp.RequestHandler
	// Registerer gets the server's own metrics. Nil: they are not exposed.
	Registerer    prometheus.Registerer
	Logger, Audit *slog.Logger // nil: discard
	MaxBody       int          // bytes; default 32 MiB
	MaxConns      int          // default 4096
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = slog.New(slog.DiscardHandler)
	}
	if o.MaxBody == 0 {
		o.MaxBody = 32 << 20
	}
	if o.MaxConns == 0 {
		o.MaxConns = 4096
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	if o.MaxBody < 0 {
		errs = append(errs, fmt.Errorf("%w: MaxBody must not be negative, got %d", ErrBadOptions, o.MaxBody))
	}
	if o.MaxConns < 0 {
		errs = append(errs, fmt.Errorf("%w: MaxConns must not be negative, got %d", ErrBadOptions, o.MaxConns))
	}
	return errors.Join(errs...)
}
