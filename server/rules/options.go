package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"

	"github.com/strandline-db/strandline/server/alertmanager"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// Notifier takes alerts to be told. Send is called concurrently and does not block.
type Notifier interface {
	Send([]alertmanager.Alert)
}

// Leadership says whether this node is the one of its cluster that evaluates. Both
// methods are safe for concurrent use.
type Leadership interface {
	Leads() bool
	// Changed returns a channel that gets a value after Leads may have changed.
	Changed() <-chan struct{}
}

// Options of a Manager. Nil and zero values mean the defaults named here.
type Options struct {
	Query     QueryFunc         // required
	Queryable storage.Queryable // required: where ALERTS_FOR_STATE is looked up
	Appender  Appender          // required
	Notifier  Notifier          // nil: alerts are told to nobody
	Store     Store             // nil: what was told is forgotten at a restart
	// Sync waits until this node sees all that was written before, and w. Nil: it always does.
	Sync        func(ctx context.Context, w model.Applied) error
	Leadership  Leadership // nil: always this node
	ExternalURL *url.URL   // of this server; nil: unknown
	// ResendDelay is how long a firing alert is not told again. Default 1m.
	ResendDelay time.Duration
	// OutageTolerance is how old ALERTS_FOR_STATE may be at a restart. Default 1h.
	OutageTolerance time.Duration
	// ForGracePeriod is the least wait before a restored alert fires. Default 10m.
	ForGracePeriod time.Duration
	Clock          clock.Clock           // nil: the machine's
	Logger         *slog.Logger          // nil: discard
	Registerer     prometheus.Registerer // nil: no metrics
}

type nobody struct{}

func (nobody) Send([]alertmanager.Alert) {}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Notifier == nil {
		o.Notifier = nobody{}
	}
	if o.Sync == nil {
		o.Sync = func(context.Context, model.Applied) error { return nil }
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.ResendDelay, time.Minute}, {&o.OutageTolerance, time.Hour}, {&o.ForGracePeriod, 10 * time.Minute}} {
		if *d.v == 0 {
			*d.v = d.def
		}
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
	check(o.Query != nil, "Query is missing")
	check(o.Queryable != nil, "Queryable is missing")
	check(o.Appender != nil, "Appender is missing")
	check(o.ResendDelay > 0 && o.OutageTolerance > 0 && o.ForGracePeriod > 0, "durations must be positive")
	return errors.Join(errs...)
}
