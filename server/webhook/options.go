package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/wal/clock"
)

// Options of a Dispatcher. Nil and zero values mean the defaults named here.
type Options struct {
	Store   Store   // required
	Targets Targets // required
	Policy  Policy
	// Timeout of one attempt, from resolving the name to the answer's end. Default 10s.
	Timeout time.Duration
	// Backoff is the pause after the first failure; each further one doubles it, up to
	// MaxBackoff. A random half is taken off. Defaults 1s and 5m.
	Backoff, MaxBackoff time.Duration
	// MaxAge is how long a message is tried. Default 24h.
	MaxAge time.Duration
	// Trip is how many failures in a row open a target's circuit; each URL has its own. Default 5.
	Trip int
	// OpenFor is how long a circuit stays open before one attempt is let through. It goes
	// by the machine's clock. Default 30s.
	OpenFor time.Duration
	// MaxParallel is how many attempts run at a time. Default 16.
	MaxParallel int
	// MaxPerHost is how many of them run at one scheme, host and port; half of that, or one, at
	// targets whose last attempt has failed. Default 4.
	MaxPerHost int
	Resolver   Resolver              // nil: the machine's
	Dialer     Dialer                // nil: the machine's
	TLS        *tls.Config           // nil: the machine's authorities, TLS 1.2 or newer
	Random     func() float64        // in [0, 1); nil: the machine's
	Clock      clock.Clock           // nil: the machine's
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.Timeout, 10 * time.Second}, {&o.Backoff, time.Second}, {&o.MaxBackoff, 5 * time.Minute}, {&o.MaxAge, 24 * time.Hour}, {&o.OpenFor, 30 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.Trip == 0 {
		o.Trip = 5
	}
	if o.MaxParallel == 0 {
		o.MaxParallel = 16
	}
	if o.MaxPerHost == 0 {
		o.MaxPerHost = 4
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Dialer == nil {
		o.Dialer = &net.Dialer{}
	}
	if o.TLS == nil {
		o.TLS = defaultTLS()
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: %s", ErrBadOptions, what))
		}
	}
	check(o.Store != nil, "Store is missing")
	check(o.Targets != nil, "Targets is missing")
	check(o.Timeout > 0 && o.Backoff > 0 && o.MaxBackoff >= o.Backoff && o.MaxAge > 0 && o.OpenFor > 0, "durations must be positive, MaxBackoff not below Backoff")
	check(o.Trip > 0 && o.MaxParallel > 0 && o.MaxPerHost > 0, "Trip, MaxParallel and MaxPerHost must be positive")
	return errors.Join(errs...)
}
