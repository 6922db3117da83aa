package live

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/shard/model"
)

// Options of a Server. Nil and zero values mean the defaults named here.
type Options struct {
	MaxConns   int // connections at a time. Default 2048
	MaxSubs    int // subscriptions of a connection. Default 100
	MaxSeries  int // series of a subscription. Default 1000
	MaxMessage int // bytes of a client's message. Default 64 KiB
	// Heartbeat is the distance of heartbeats; pings go with every fourth, and a
	// client that is silent for twelve is cut. Default 5s.
	Heartbeat time.Duration
	// WriteTimeout is how long a client may take nothing before it is cut. Default 10s.
	WriteTimeout time.Duration
	// SyncTimeout bounds the wait for "applied". Default 10s.
	SyncTimeout time.Duration
	// Origins are those, besides the server's own, whose pages may connect:
	// "https://host:port", or "*" for all.
	Origins []string
	// Compression permits permessage-deflate to clients that ask for it.
	Compression bool
	// Writers is how many connections are written to at a time. Default: twice the CPUs,
	// at least 4.
	Writers int
	// Sync waits until this node has applied what the token says. Nil: it has.
	Sync func(context.Context, model.Applied) error
	// Access returns a function that tells whether who sent the request may still be served.
	// See Recheck. Nil: always.
	Access        func(*fasthttp.RequestCtx) func() bool
	Registerer    prometheus.Registerer // nil: the metrics are not exposed
	Logger, Audit *slog.Logger          // nil: discard
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns the
// options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	orDefault(&o.MaxConns, 2048)
	orDefault(&o.MaxSubs, 100)
	orDefault(&o.MaxSeries, 1000)
	orDefault(&o.MaxMessage, 64<<10)
	orDefault(&o.Heartbeat, 5*time.Second)
	orDefault(&o.WriteTimeout, 10*time.Second)
	orDefault(&o.SyncTimeout, 10*time.Second)
	orDefault(&o.Writers, max(4, 2*runtime.GOMAXPROCS(0)))
	if o.Access == nil {
		o.Access = func(*fasthttp.RequestCtx) func() bool { return func() bool { return true } }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = slog.New(slog.DiscardHandler)
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
	for name, v := range map[string]int64{
		"MaxConns": int64(o.MaxConns), "MaxSubs": int64(o.MaxSubs), "MaxSeries": int64(o.MaxSeries),
		"MaxMessage": int64(o.MaxMessage), "Heartbeat": int64(o.Heartbeat), "WriteTimeout": int64(o.WriteTimeout),
		"SyncTimeout": int64(o.SyncTimeout), "Writers": int64(o.Writers),
	} {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%w: %s must be positive, got %d", ErrBadOptions, name, v))
		}
	}
	return errors.Join(errs...)
}
