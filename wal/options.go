package wal

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
)

// Options configure a log. A nil *Options, and any zero field, means the default.
type Options struct {
	FS          vfs.FS // the machine's
	SegmentSize int64  // bytes preallocated for a segment. Default: 64 MiB
	Logger      *slog.Logger
	// Pace, for logs with many independent appenders, makes more of them share an fsync:
	// a writer gives way to other callers before it writes; it waits, a Pace at most, for
	// streams that have lately been written together with its own; and while writes come
	// without end, an fsync begins only each Pace. 0: each writer writes at once.
	Pace time.Duration
	// PutAside lets a damaged log be opened without what lies behind the damage, in doubt:
	// for owners that can get it from elsewhere. Without it Open fails.
	PutAside bool
	// Failpoint is called with a name at each step at which a crash is interesting.
	// Nil outside tests.
	Failpoint func(name string)
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Failpoint == nil {
		o.Failpoint = func(string) {}
	}
}

// Validate reports what is wrong with the options.
func (o *Options) Validate() error {
	if o.SegmentSize < 4096 || o.SegmentSize > 1<<31 {
		return fmt.Errorf("wal: a segment of %d bytes is not between 4 KiB and 2 GiB", o.SegmentSize)
	}
	if o.Pace < 0 {
		return fmt.Errorf("wal: a pace of %v is negative", o.Pace)
	}
	return nil
}
