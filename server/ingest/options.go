package ingest

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of a Handler. Nil and zero values mean the defaults named here.
type Options struct {
	MaxBodyBytes  int           // after decompression; default 32 MiB
	MaxConcurrent int           // requests in work at once; default 8 a processor, at least 32
	MaxWait       time.Duration // for one of those places, before 503; default 250 ms
	// MaxInFlightBytes bounds the decompressed bodies of all requests in work
	// together; default 8 times MaxBodyBytes.
	MaxInFlightBytes int64
	RequestTimeout   time.Duration         // for storing; default 30 s
	Logger           *slog.Logger          // nil: discard
	Registerer       prometheus.Registerer // nil: metrics are not exposed
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 32 << 20
	}
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = max(32, 8*runtime.GOMAXPROCS(0))
	}
	if o.MaxWait == 0 {
		o.MaxWait = 250 * time.Millisecond
	}
	if o.MaxInFlightBytes == 0 {
		o.MaxInFlightBytes = 8 * int64(o.MaxBodyBytes)
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	atLeast := func(name string, got, least int64) {
		if got < least {
			errs = append(errs, fmt.Errorf("%w: %s must be at least %d, got %d", ErrBadOptions, name, least, got))
		}
	}
	atLeast("MaxBodyBytes", int64(o.MaxBodyBytes), 1)
	atLeast("MaxConcurrent", int64(o.MaxConcurrent), 1)
	atLeast("MaxWait", int64(o.MaxWait), 0)
	atLeast("MaxInFlightBytes", o.MaxInFlightBytes, int64(o.MaxBodyBytes))
	atLeast("RequestTimeout", int64(o.RequestTimeout), 1)
	return errors.Join(errs...)
}
