package shard

import (
	"errors"
	"log/slog"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
)

// Options configure a shard. Zero means the default where one is named.
type Options struct {
	ID  int
	Dir string // manifest, series table and hot blocks
	// WarmDir and ColdDir hold the blocks of these tiers; Dir/warm and Dir/cold if empty.
	WarmDir, ColdDir string
	FS               vfs.FS // the machine's, if nil
	Logger           *slog.Logger

	// A block never crosses a boundary of its tier's window. Each window is a multiple
	// of the one before. Defaults: 1 day, 7 days, 28 days.
	HotWindow, WarmWindow, ColdWindow time.Duration
	// WarmAfter and ColdAfter are the ages at which data leaves the hot and the
	// warm tier. Defaults: 7 and 30 days.
	WarmAfter, ColdAfter time.Duration
	// MergeAt is how many hot blocks of one window make a merge worth while. Default: 8.
	MergeAt int
	// Reserve is how many bytes of disk a merge must leave free: one that might not waits.
	Reserve int64
	// Damaged is told of each block that is found damaged, once; it must not block. With
	// it the shard opens although a block can't be: reads that need the block fail until
	// Repair. Nil: nobody can repair anything.
	Damaged func(block string, err error)
	// Failpoint is called with a name at each step at which a crash is interesting.
	// Nil outside tests.
	Failpoint func(name string)
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	const day = 24 * time.Hour
	def(&o.HotWindow, day)
	def(&o.WarmWindow, 7*day)
	def(&o.ColdWindow, 28*day)
	def(&o.WarmAfter, 7*day)
	def(&o.ColdAfter, 30*day)
	if o.MergeAt == 0 {
		o.MergeAt = 8
	}
	if o.WarmDir == "" {
		o.WarmDir = o.Dir + "/warm"
	}
	if o.ColdDir == "" {
		o.ColdDir = o.Dir + "/cold"
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("shard: no folder given"))
	}
	if o.HotWindow < time.Millisecond || o.WarmWindow%o.HotWindow != 0 || o.ColdWindow%o.WarmWindow != 0 {
		errs = append(errs, errors.New("shard: each tier's window must be a multiple of the one before"))
	}
	if o.ColdAfter < o.WarmAfter {
		errs = append(errs, errors.New("shard: data can't turn cold before it turns warm"))
	}
	if o.MergeAt < 2 {
		errs = append(errs, errors.New("shard: a merge needs at least two blocks"))
	}
	return errors.Join(errs...)
}
