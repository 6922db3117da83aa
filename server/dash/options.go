package dash

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/wal/clock"
)

// ErrBadOptions: an option can't be used.
var ErrBadOptions = errors.New("bad dashboard options")

// Options configure a Dash. Nil and zero values mean the defaults named here.
type Options struct {
	// Lookback is how old the newest sample of a series may be to count as its latest
	// value. Default 5m.
	Lookback time.Duration
	// Timeout ends a computation. Default 2m.
	Timeout    time.Duration
	MaxMetrics int // in one request; default 100
	MaxSeries  int // of one metric; default 1000
	// MaxResponseBytes bounds an answer. Default 16 MiB.
	MaxResponseBytes int
	// CacheLife is how long an answer is given again. Default 100ms; negative: never.
	CacheLife  time.Duration
	CacheBytes int64 // default 16 MiB
	// Fresh waits until the data is as fresh as the request asks for, returns a context
	// whose values a read with it must have, and reports whether it asked for anything.
	// Nil: there is nothing to wait for.
	Fresh func(context.Context, *fasthttp.RequestCtx) (context.Context, bool, error)
	// Warnings tells what a read with a context of Fresh left out. Nil: nothing.
	Warnings func(context.Context) []string
	// Ready returns nil when the server is in good health. Nil: it always is.
	Ready func() error
	// WatchInterval is the time between looks at a waiting client's connection. Default 100ms.
	WatchInterval time.Duration
	// Registerer gets the cache's metrics. Nil: they are not exposed.
	Registerer prometheus.Registerer
	Logger     *slog.Logger // gets internal faults; nil: discard
	Clock      clock.Clock  // tells the present; default the machine's
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns
// the options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	orDefault(&o.Lookback, 5*time.Minute)
	orDefault(&o.Timeout, 2*time.Minute)
	orDefault(&o.MaxMetrics, 100)
	orDefault(&o.MaxSeries, 1000)
	orDefault(&o.MaxResponseBytes, 16<<20)
	orDefault(&o.CacheLife, 100*time.Millisecond)
	orDefault(&o.CacheBytes, 16<<20)
	orDefault(&o.WatchInterval, 100*time.Millisecond)
	if o.Fresh == nil {
		o.Fresh = func(ctx context.Context, _ *fasthttp.RequestCtx) (context.Context, bool, error) {
			return ctx, false, nil
		}
	}
	if o.Warnings == nil {
		o.Warnings = func(context.Context) []string { return nil }
	}
	if o.Ready == nil {
		o.Ready = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	return o
}

func orDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, name string, v any) {
		if !ok {
			errs = append(errs, fmt.Errorf("%w: %s must be positive, got %v", ErrBadOptions, name, v))
		}
	}
	check(o.Lookback > 0, "Lookback", o.Lookback)
	check(o.Timeout > 0, "Timeout", o.Timeout)
	check(o.MaxMetrics > 0, "MaxMetrics", o.MaxMetrics)
	check(o.MaxSeries > 0, "MaxSeries", o.MaxSeries)
	check(o.MaxResponseBytes > 0, "MaxResponseBytes", o.MaxResponseBytes)
	check(o.CacheBytes > 0, "CacheBytes", o.CacheBytes)
	check(o.WatchInterval > 0, "WatchInterval", o.WatchInterval)
	return errors.Join(errs...)
}
