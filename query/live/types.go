package live

import (
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Request asks for a subscription.
type Request struct {
	Query string // PromQL that gives a vector or a scalar
	// Step is the distance of the steps, which lie on multiples of it since 1970.
	// 0: Options.Step. At least Options.MinStep.
	Step time.Duration
	// Samples asks for a plain selector's samples as they are applied, in place of steps.
	Samples bool
	// Backfill is how far back to start; 0: with the next step. At most Options.MaxBackfill.
	Backfill time.Duration
	// After resumes: the step, in Unix milliseconds, after which to go on; 0: none. It
	// goes before Backfill. What lies beyond Options.MaxBackfill is told as dropped. The
	// steps that may have been corrected since, those of Options.Horizon up to After, come
	// first, each with a revision of its own. In samples mode it is a moment by the server's clock: what was applied
	// after it comes, and with it again all else of Options.Horizon and some seconds before
	// it, for nobody knows when a sample was applied.
	After int64
	// Seen is the greatest sum of time and revision, in milliseconds, of the corrections that the
	// client has from anywhere: what it is sent after After has greater ones, though the clock
	// of this process be behind, by a minute at most. 0: none.
	Seen int64
	// MaxSeries is the most series of a step; more is a *model.LimitError. 0: Options.MaxSeries,
	// which also bounds it.
	MaxSeries int
	// Wake is called when Poll will give something after it gave nothing. It is called
	// without a lock and must return at once; nil: never.
	Wake   func()
	Client string // who asks, for the list of active queries and the log
}

// Info describes a subscription.
type Info struct {
	Query string // normalised
	Step  time.Duration
	Mode  string // ModeSamples, ModeIncremental or ModeStepped
}

// How a query is evaluated.
const (
	ModeSamples     = "samples"     // not at all: samples are passed on as they are applied
	ModeIncremental = "incremental" // from the samples as they are applied
	ModeStepped     = "stepped"     // by an instant query a step
)

// Kind says what an Event tells.
type Kind uint8

// The kinds of events.
const (
	SeriesKind  Kind = iota + 1 // Series: numbers that later events use
	DataKind                    // Step
	StaleKind                   // Stale, T: series that ended at T
	DroppedKind                 // Dropped: steps or samples that are not delivered
	ErrorKind                   // Err, T: the evaluation failed; the subscription lives on
)

// Event is one thing that a subscription tells. What it points to is shared with
// other subscriptions and must not be changed.
type Event struct {
	Kind    Kind
	Series  []SeriesDef
	Step    *Step
	Stale   []uint32
	T       int64 // Unix milliseconds
	Dropped Dropped
	Err     error // typed as in package query
}

// SeriesDef gives a label set its number, which is never used again within a query.
type SeriesDef struct {
	ID     uint32
	Labels labels.Labels
}

// Dropped says what was not delivered.
type Dropped struct {
	Count    int64 // steps, or samples in samples mode; 0: not known
	From, To int64 // Unix milliseconds, both inclusive; in samples mode when they were applied
}

// Step is the result of a query at one time. It is immutable.
type Step struct {
	T int64 // Unix milliseconds
	// Rev is 0 first. A correction of the step has a higher one: the milliseconds from T
	// to the moment of the correction, so that it grows also across restarts.
	Rev    uint32
	Values []Value // in order of series number
	failed bool    // it stands for a failure in the evaluation's own books
	once   sync.Once
	enc    []byte
}

// Value is the value of one series: a histogram if H is set.
type Value struct {
	Series uint32
	V      float64
	H      *histogram.FloatHistogram
}

// Encoded returns enc(s), which whoever comes first computes for all. Safe for
// concurrent use; enc must be the same for all callers.
func (s *Step) Encoded(enc func(*Step) []byte) []byte {
	s.once.Do(func() { s.enc = enc(s) })
	return s.enc
}
