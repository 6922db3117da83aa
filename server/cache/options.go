package cache

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/wal/clock"
)

// ErrBadOptions: an option can't be used.
var ErrBadOptions = errors.New("bad cache options")

// ErrPanicked: a computation panicked.
var ErrPanicked = errors.New("answer could not be computed")

// Options of a Cache. Nil and zero values mean the defaults named here.
type Options struct {
	Name string // label "cache" of the metrics; default "answers"
	// Life is how long an answer serves after it was computed. Default 100ms;
	// negative: it serves only those who waited for it.
	Life       time.Duration
	MaxEntries int   // default 1024
	MaxBytes   int64 // of keys and answers; default 16 MiB
	// MaxRunning is how many computations run at a time. Default 16.
	MaxRunning int
	// MaxFlights is how many computations run or wait; one more is refused with
	// model.ErrOverloaded. Default 512.
	MaxFlights int
	// Registerer gets the cache's metrics. Nil: they are not exposed.
	Registerer prometheus.Registerer
	// Clock tells when an entry expires. Default the machine's.
	Clock clock.Clock
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns
// the options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	orDefault(&o.Name, "answers")
	orDefault(&o.Life, 100*time.Millisecond)
	orDefault(&o.MaxEntries, 1024)
	orDefault(&o.MaxBytes, 16<<20)
	orDefault(&o.MaxRunning, 16)
	orDefault(&o.MaxFlights, 512)
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
	for name, v := range map[string]int64{"MaxEntries": int64(o.MaxEntries), "MaxBytes": o.MaxBytes, "MaxRunning": int64(o.MaxRunning), "MaxFlights": int64(o.MaxFlights)} {
		if v < 0 {
			errs = append(errs, fmt.Errorf("%w: %s must not be negative, got %d", ErrBadOptions, name, v))
		}
	}
	return errors.Join(errs...)
}
