package model

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"
)

// Feeder tells of samples as they are applied. Safe for concurrent use.
type Feeder interface {
	// Subscribe returns a feed of the samples that are applied to matching series from
	// now on, whether the series exist already or not. What was applied before is in
	// every Select that begins after Subscribe has returned, and whatever a Select shows
	// of what is applied later the feed has been given by then: nothing falls between
	// the two. The feed ends when ctx does.
	Subscribe(ctx context.Context, req *FeedRequest) (Feed, error)
}

// FeedRequest names series and how a feed of them is to be held. Zero means default.
type FeedRequest struct {
	// Matchers must all hold. Empty means every series.
	Matchers []*labels.Matcher
	// MaxSeries is the most series that may match, then and later; more is a
	// *LimitError. 0: no limit.
	MaxSeries int
	// Buffer is how many samples wait for a reader at most; what goes past it is lost to
	// the feed and counted. Default: 65536.
	Buffer int
	// Wake, if set, is called once WakeAt samples wait (0: one), or when the feed has
	// lost something or failed; then not again before the next Poll. It runs on the
	// goroutine that applies, without a lock, and must return at once. Where WakeAt is
	// large, thousands, it may come as much as two thousand samples of each shard late.
	Wake   func()
	WakeAt int
}

// Feed is one subscription to applied samples, for one goroutine at a time; Close may
// be called from any. Nothing that its reader does or fails to do holds up whoever applies.
type Feed interface {
	// Poll fills dst with what came since the last call, without waiting. What one log
	// entry of a shard brought is never torn apart. The error is the feed's end: a
	// *LimitError, ErrClosed, or that of the context.
	Poll(dst *FeedBatch) error
	// Next waits until there is something to Poll, as Wake does, or until ctx ends.
	Next(ctx context.Context, dst *FeedBatch) error
	// Close ends the feed and gives everything back. Idempotent.
	Close()
}

// FeedBatch is a piece of a feed. Its memory belongs to the reader, who may pass it
// to the next Poll; labels and histograms are immutable and may be kept.
type FeedBatch struct {
	// Series are those that have samples here for the first time. A series that left the
	// storage's memory and came back is told again, under a new number.
	Series []FeedSeries
	// Samples are in order of application, series by series; timestamps may repeat (the
	// later sample replaces the earlier) and go back. Retries of a stored sample don't show.
	Samples []FeedSample
	// Applied says how far the feed has come: all that matches up to there has been given.
	Applied Applied
	// Lost counts samples that were dropped behind these because nobody came for them.
	Lost int64
	// Reset says that what was applied and delivered before may hold no longer: another
	// replica's state was installed. After a Lost or a Reset a reader that keeps state
	// begins anew with a Select, which shows all that these Samples tell.
	Reset bool
	// Lacks: some shards can't be followed for now, or what is followed may itself be behind.
	// What is applied there meanwhile comes late, or is lost; then a Reset will tell.
	Lacks bool
	// Cut: samples before it, in milliseconds, are gone; math.MinInt64 if nothing was cut.
	Cut int64
}

// FeedSeries gives a series its number in one feed.
type FeedSeries struct {
	ID     uint32
	Labels labels.Labels
}

// FeedSample is one applied sample: a float, or a histogram if Hist is set.
type FeedSample struct {
	Series uint32
	T, ST  int64 // milliseconds; ST is 0 when not given
	V      float64
	Hist   *HistogramSample
}

// Empty tells whether there is nothing in the batch that a reader must act on.
func (b *FeedBatch) Empty() bool {
	return len(b.Samples) == 0 && len(b.Series) == 0 && b.Lost == 0 && !b.Reset
}
