package live

import (
	"context"
	"math"
	"sync"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
)

// Feeds are the open feeds of an engine. Safe for concurrent use.
type Feeds struct {
	shards []*shard.Shard
	mu     struct {
		sync.Mutex
		open   map[*Feed]struct{}
		closed bool
	}
}

// New returns a set of feeds over shards, without any.
func New(shards []*shard.Shard) *Feeds {
	f := &Feeds{shards: shards}
	f.mu.open = map[*Feed]struct{}{}
	return f
}

// defaultBuffer is how many samples wait for a reader who names no number.
const defaultBuffer = 1 << 16

// patientFrom is for how many samples a reader must be ready to wait so that the shards may
// keep them together for a while: enough that what they keep hardly counts beside it.
const patientFrom = 1 << 14

// Subscribe opens a feed of all shards; see model.Feeder.
func (fs *Feeds) Subscribe(ctx context.Context, req *model.FeedRequest) (*Feed, error) {
	all := make([]int, len(fs.shards))
	for i := range all {
		all[i] = i
	}
	return fs.SubscribeTo(ctx, all, req)
}

// SubscribeTo opens a feed of some shards.
func (fs *Feeds) SubscribeTo(ctx context.Context, shards []int, req *model.FeedRequest) (*Feed, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f := &Feed{owner: fs, of: shards, max: req.MaxSeries, buffer: req.Buffer, wakeAt: max(req.WakeAt, 1), wake: req.Wake, ready: make(chan struct{}, 1)}
	if f.buffer <= 0 {
		f.buffer = defaultBuffer
	}
	f.wakeAt = min(f.wakeAt, f.buffer)
	f.mu.batch.Cut = math.MinInt64
	if err := fs.add(f); err != nil {
		return nil, err
	}
	for _, i := range shards {
		w, err := fs.shards[i].Watch(ctx, req.Matchers, f, f.wakeAt >= patientFrom)
		if err == nil {
			f.watches = append(f.watches, w)
			err = f.failure()
		}
		if err != nil {
			f.end(err)
			f.unwatch()
			return nil, err
		}
	}
	// What ends the feed must find all its watches.
	f.release = context.AfterFunc(ctx, func() { f.end(context.Cause(ctx)); f.unwatch() })
	return f, nil
}

func (fs *Feeds) add(f *Feed) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.mu.closed {
		return model.ErrClosed
	}
	fs.mu.open[f] = struct{}{}
	return nil
}

func (fs *Feeds) remove(f *Feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.mu.open, f)
}

// Len returns how many feeds are open.
func (fs *Feeds) Len() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.mu.open)
}

// Close ends all feeds with model.ErrClosed.
func (fs *Feeds) Close() {
	fs.mu.Lock()
	fs.mu.closed = true
	open := fs.mu.open
	fs.mu.open = map[*Feed]struct{}{}
	fs.mu.Unlock()
	for f := range open {
		f.end(model.ErrClosed)
	}
}

// Feed implements model.Feed, and shard.Sink for the shards. What each entry touches
// comes first.
type Feed struct {
	buffer int
	wakeAt int
	mu     struct {
		sync.Mutex
		woken   bool // since the last Poll
		err     error
		batch   model.FeedBatch // what waits
		series  int             // that match
		numbers uint32
	}
	owner   *Feeds
	of      []int          // shards
	watches []*shard.Watch // one for each of them
	max     int
	wake    func()
	ready   chan struct{} // capacity 1
	release func() bool
}

var (
	_ model.Feed = (*Feed)(nil)
	_ shard.Sink = (*Feed)(nil)
)

// Match implements shard.Sink.
func (f *Feed) Match(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n > 0 && f.max > 0 && f.mu.series+n > f.max {
		f.failLocked(&model.LimitError{What: "series", Limit: int64(f.max), Flag: "live-max-series"})
		return false
	}
	f.mu.series += n
	return true
}

// Number implements shard.Sink.
func (f *Feed) Number() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.numbers++
	return f.mu.numbers - 1
}

// Take implements shard.Sink.
func (f *Feed) Take(d *shard.Delta) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := &f.mu.batch
	if n := d.News(); n != nil {
		b.Series = append(b.Series, n.Series...)
		b.Reset = b.Reset || n.Reset
		b.Cut = max(b.Cut, n.Cut)
	}
	if b.Lost > 0 || len(b.Samples)+d.Len() > f.buffer {
		b.Lost += int64(d.Len())
	} else {
		b.Samples = d.AppendSamples(b.Samples)
	}
	if f.mu.woken || len(b.Samples) < f.wakeAt && b.Lost == 0 && !b.Reset && f.mu.err == nil {
		return false
	}
	f.mu.woken = true
	return true
}

// Wake implements shard.Sink.
func (f *Feed) Wake() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
	if f.wake != nil {
		f.wake()
	}
}

// Poll implements model.Feed.
func (f *Feed) Poll(dst *model.FeedBatch) error {
	// Read first: what was applied by now is given by now.
	applied := dst.Applied[:0]
	for _, i := range f.of {
		s := f.owner.shards[i]
		applied = append(applied, model.ShardIndex{Shard: i, Index: s.Applied()})
		s.HandOver()
	}
	clear(dst.Series)
	clear(dst.Samples)
	f.mu.Lock()
	defer f.mu.Unlock()
	*dst, f.mu.batch = f.mu.batch, model.FeedBatch{Series: dst.Series[:0], Samples: dst.Samples[:0], Cut: math.MinInt64}
	dst.Applied = applied
	f.mu.woken = false
	return f.mu.err
}

// Next implements model.Feed.
func (f *Feed) Next(ctx context.Context, dst *model.FeedBatch) error {
	for {
		if err := f.Poll(dst); err != nil || !dst.Empty() {
			return err
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close implements model.Feed.
func (f *Feed) Close() {
	f.release()
	f.end(model.ErrClosed)
	f.unwatch()
}

// unwatch gives the shards' side back.
func (f *Feed) unwatch() {
	for i, w := range f.watches {
		f.owner.shards[f.of[i]].Unwatch(w)
	}
	f.owner.remove(f)
}

func (f *Feed) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.err
}

func (f *Feed) failLocked(err error) {
	if f.mu.err == nil {
		f.mu.err = err
	}
}

// end makes err the feed's end, if it has none, and wakes its reader.
func (f *Feed) end(err error) {
	f.mu.Lock()
	first := f.mu.err == nil
	f.failLocked(err)
	f.mu.Unlock()
	if first {
		f.Wake()
	}
}
