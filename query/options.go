package query

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/strandline-db/strandline/wal/clock"
)

// Options configure an Engine. Nil and zero values mean the defaults named here.
type Options struct {
	// Timeout ends a query, time in the queue included. Default 2m.
	Timeout time.Duration
	// MaxSamples bounds the samples that a query holds in memory at a time, in the
	// engine and (counted apart) in decoded columns. Default 50,000,000.
	MaxSamples int
	// MaxSeries bounds the series of one selector. 0: no limit.
	MaxSeries int
	// MaxConcurrent is how many queries run at once. Default 20.
	MaxConcurrent int
	// MaxQueued is how many more may wait for a turn; one more is refused at once
	// with model.ErrOverloaded. Default 10 times MaxConcurrent; negative: none.
	MaxQueued int
	// LookbackDelta is how old the newest sample may be to count at an instant. Default 5m.
	LookbackDelta time.Duration
	// SubqueryStep is the step of a subquery that names none. Default 1m.
	SubqueryStep time.Duration
	// SlowQuery is the duration from which a query is logged. Default 10s; negative: never.
	SlowQuery time.Duration
	// Logger gets slow queries and engine faults. Default: none.
	Logger *slog.Logger
	// Clock measures queries for the list of active ones and the slow log. Default
	// the machine's. Timeouts always go by the machine's clock.
	Clock clock.Clock

	// The rest is off by default, as in Prometheus, where feature flags turn it on.

	ExperimentalFunctions bool // promql-experimental-functions
	BinopFillModifiers    bool // promql-binop-fill-modifiers
	UnquotedUTF8Names     bool // unquoted names beyond ASCII
	DelayedNameRemoval    bool // promql-delayed-name-removal
	StartTimestamps       bool // rate() and kin use start timestamps
	PerStepStats          bool // promql-per-step-stats, for stats=all
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns
// the options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	orDefault(&o.Timeout, 2*time.Minute)
	orDefault(&o.MaxSamples, 50_000_000)
	orDefault(&o.MaxConcurrent, 20)
	orDefault(&o.MaxQueued, 10*o.MaxConcurrent)
	orDefault(&o.LookbackDelta, 5*time.Minute)
	orDefault(&o.SubqueryStep, time.Minute)
	orDefault(&o.SlowQuery, 10*time.Second)
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

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, name string, v any) {
		if !ok {
			errs = append(errs, fmt.Errorf("query: %s must be positive, got %v", name, v))
		}
	}
	check(o.Timeout > 0, "Timeout", o.Timeout)
	check(o.MaxSamples > 0, "MaxSamples", o.MaxSamples)
	check(o.MaxConcurrent > 0, "MaxConcurrent", o.MaxConcurrent)
	check(o.LookbackDelta > 0, "LookbackDelta", o.LookbackDelta)
	check(o.SubqueryStep > 0, "SubqueryStep", o.SubqueryStep)
	if o.MaxSeries < 0 {
		errs = append(errs, fmt.Errorf("query: MaxSeries must not be negative, got %d", o.MaxSeries))
	}
	return errors.Join(errs...)
}
