package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

// Options configure an engine. A nil *Options, and any zero field, means the default.
type Options struct {
	FS         vfs.FS      // the machine's file system
	Clock      clock.Clock // the machine's clock
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics

	// Shards is how many hash partitions a new data folder gets. It is fixed at
	// creation: a folder that exists keeps its own. Default: 8.
	Shards int
	// PairLabel is the label by which a pair of senders of the same series is told apart.
	// A new data folder leaves it out when it places series, and so keeps what belongs
	// together in one shard; a folder that exists keeps its own. If that is the same, what is
	// older than WarmAfter is stored once, as package pair chooses. Empty: no label is special.
	PairLabel string
	// Retention is how long samples are kept. Default: 395 days. Negative: for ever.
	Retention time.Duration
	// RetentionBytes bounds the blocks on disk: the oldest samples go first. 0: no bound.
	RetentionBytes int64
	// WarmAfter and ColdAfter are the ages at which data moves on. Defaults: 7 and 30 days.
	WarmAfter, ColdAfter time.Duration
	// WarmDir and ColdDir place these tiers in other folders. Default: below the data folder.
	WarmDir, ColdDir string
	// FlushInterval is the longest that samples stay in memory. Default: 2 h.
	FlushInterval time.Duration
	// HeadBytes bounds the packed samples in memory, roughly; more is flushed early. Default: 256 MiB.
	HeadBytes int64
	// MaxSeries bounds the active series. Enforced a shard, so that a new series may be
	// refused a little before the total is reached. Default: 10 million. Negative: no bound.
	MaxSeries int
	// MaxFuture is how far ahead of the clock a sample may lie. 0: anywhere.
	MaxFuture time.Duration
	// MinFreeBytes of disk must stay free: below it writes are refused with
	// model.ErrReadOnly until there is room again. Default: 256 MiB. Negative: unchecked.
	MinFreeBytes int64
	// ScrubRate is how many bytes of blocks a second are read in the background to verify
	// their checksums. 0: none.
	ScrubRate int64
	// SegmentBytes is the size of a log segment. Default: the log's own.
	SegmentBytes int64
	// OnFailure is called once, from a goroutine of the engine, when a log write or a
	// change of files has failed. The engine answers model.ErrFailed from then on; the
	// process should end and be started again.
	OnFailure func(error)
	// Replicate, if set, makes the Committer in place of the local log: the way of a
	// cluster into the engine. Open calls it once, with everything opened and nothing
	// replayed.
	Replicate func(*Replicas) (Committer, error)
	// Failpoint is called with a name at each step at which a crash is interesting.
	// Nil outside tests.
	Failpoint func(name string)
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	def(&o.Shards, 8)
	def(&o.Retention, 395*24*time.Hour)
	def(&o.WarmAfter, 7*24*time.Hour)
	def(&o.ColdAfter, 30*24*time.Hour)
	def(&o.FlushInterval, 2*time.Hour)
	def(&o.HeadBytes, 256<<20)
	def(&o.MaxSeries, 10_000_000)
	def(&o.MinFreeBytes, 256<<20)
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Shards < 1 || o.Shards > 1024 {
		errs = append(errs, fmt.Errorf("shards: %d is not between 1 and 1024", o.Shards))
	}
	if o.WarmAfter < 0 || o.ColdAfter < o.WarmAfter {
		errs = append(errs, errors.New("cold-after must not be less than warm-after, nor either negative"))
	}
	if o.FlushInterval < 0 || o.HeadBytes < 0 {
		errs = append(errs, errors.New("flush-interval and head-bytes must not be negative"))
	}
	if o.RetentionBytes < 0 || o.MaxFuture < 0 || o.SegmentBytes < 0 || o.ScrubRate < 0 {
		errs = append(errs, errors.New("retention-bytes, max-future, segment-bytes and scrub-rate must not be negative"))
	}
	return errors.Join(errs...)
}
