package live

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/strandline-db/strandline/wal/clock"
)

// Options configure a Hub. Nil and zero values mean the defaults named here.
type Options struct {
	Step    time.Duration // of a request that names none. Default 1s
	MinStep time.Duration // the least. Default 100ms
	// Delay is how long after its time a step is closed, which gives samples on their
	// way time to arrive. Default 500ms; negative: none.
	Delay time.Duration
	// Horizon is for how long after its time a step is sent again when later samples
	// change it. Default 1m; negative: never.
	Horizon time.Duration
	// MaxBackfill bounds how far back a subscription may start. Default 24h.
	MaxBackfill time.Duration
	// MaxBackfillSteps bounds the same in steps. Default 11,000.
	MaxBackfillSteps int
	// MaxSeries bounds the series of one step, and those that an evaluation reads. Default 10,000.
	MaxSeries int
	// MaxQueries bounds the distinct evaluations. Default 1,000.
	MaxQueries int
	// MaxSubscribers bounds the subscriptions of one evaluation. Default 20,000.
	MaxSubscribers int
	// MaxSamples bounds what an incremental evaluation keeps in memory; a query that
	// needs more is stepped. Default 1,000,000, which is 16 MiB.
	MaxSamples int
	// ReplicaLabel is that of query.NewPairReader, if the query engine reads through one:
	// what has the label is not evaluated from the samples as they come. Empty: none.
	ReplicaLabel string
	// Ring is how many events an evaluation keeps for slow subscribers, and RingValues
	// how many values there may be in them. Defaults 256 and 200,000.
	Ring, RingValues int
	// Linger is for how long an evaluation goes on without subscribers. Default 10s.
	Linger time.Duration
	// Workers is how many evaluations that work in memory run at a time, and QueryWorkers
	// how many that read the storage: all that are stepped, incremental ones where they must,
	// and backfills. Defaults 2 and 4.
	Workers, QueryWorkers int
	Logger                *slog.Logger // Default: none
	Clock                 clock.Clock  // Default: the machine's
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns
// the options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	orDefault(&o.Step, time.Second)
	orDefault(&o.MinStep, 100*time.Millisecond)
	orDefault(&o.Delay, 500*time.Millisecond)
	orDefault(&o.Horizon, time.Minute)
	orDefault(&o.MaxBackfill, 24*time.Hour)
	orDefault(&o.MaxBackfillSteps, 11_000)
	orDefault(&o.MaxSeries, 10_000)
	orDefault(&o.MaxQueries, 1000)
	orDefault(&o.MaxSubscribers, 20_000)
	orDefault(&o.MaxSamples, 1_000_000)
	orDefault(&o.Ring, 256)
	orDefault(&o.RingValues, 200_000)
	orDefault(&o.Linger, 10*time.Second)
	orDefault(&o.Workers, 2)
	orDefault(&o.QueryWorkers, 4)
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
			errs = append(errs, fmt.Errorf("live: %s must be positive, got %v", name, v))
		}
	}
	check(o.MinStep >= time.Millisecond, "MinStep", o.MinStep)
	if o.Step < o.MinStep || o.Step%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("live: Step %s is not in whole milliseconds or less than MinStep %s", o.Step, o.MinStep))
	}
	check(o.MaxBackfill > 0, "MaxBackfill", o.MaxBackfill)
	check(o.MaxBackfillSteps > 0, "MaxBackfillSteps", o.MaxBackfillSteps)
	check(o.MaxSeries > 0, "MaxSeries", o.MaxSeries)
	check(o.MaxQueries > 0, "MaxQueries", o.MaxQueries)
	check(o.MaxSubscribers > 0, "MaxSubscribers", o.MaxSubscribers)
	check(o.MaxSamples > 0, "MaxSamples", o.MaxSamples)
	check(o.Ring > 1, "Ring", o.Ring)
	check(o.RingValues > 0, "RingValues", o.RingValues)
	check(o.Linger > 0, "Linger", o.Linger)
	check(o.Workers > 0, "Workers", o.Workers)
	check(o.QueryWorkers > 0, "QueryWorkers", o.QueryWorkers)
	return errors.Join(errs...)
}

// delay and horizon are in milliseconds, never negative.
func (o *Options) delay() int64   { return max(o.Delay.Milliseconds(), 0) }
func (o *Options) horizon() int64 { return max(o.Horizon.Milliseconds(), 0) }
