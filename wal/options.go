package wal

import (
	"fmt"
	"log/slog"

	"github.com/strandline-db/strandline/wal/vfs"
)

// Options configure a log. A nil *Options, and any zero field, means the default.
type Options struct {
	FS          vfs.FS // the machine's
	SegmentSize int64  // bytes preallocated for a segment. Default: 64 MiB
	Logger      *slog.Logger
	// Gather makes a writer give way to other callers before it writes, so that more of
	// them share its fsync: for logs with many independent appenders.
	Gather bool
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
	return nil
}
