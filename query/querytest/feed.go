package querytest

import (
	"context"
	"math"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
)

var _ model.Feeder = (*Store)(nil)

// feed implements model.Feed for a Store, whose only shard is 0.
type feed struct {
	s     *Store
	req   model.FeedRequest
	ready chan struct{} // capacity 1
	mu    struct {
		sync.Mutex
		batch model.FeedBatch
		ids   map[*memSeries]uint32
		err   error
		woken bool
	}
}

// Subscribe implements model.Feeder.
func (s *Store) Subscribe(ctx context.Context, req *model.FeedRequest) (model.Feed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := &feed{s: s, req: *req, ready: make(chan struct{}, 1)}
	f.req.Buffer = max(f.req.Buffer, 1<<16)
	f.mu.ids = map[*memSeries]uint32{}
	f.mu.batch.Cut = math.MinInt64
	s.mu.feeds = append(s.mu.feeds, f)
	return f, nil
}

// LoseFeeds makes every feed report that n samples were lost.
func (s *Store) LoseFeeds(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.mu.feeds {
		f.mu.Lock()
		f.mu.batch.Lost += n
		f.mu.Unlock()
	}
}

// Feeds returns how many feeds are open.
func (s *Store) Feeds() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.feeds)
}

// deliver tells the feeds of the samples that a batch brought to a series, and returns
// whom to wake; the caller holds the store's lock.
func (s *Store) deliver(m *memSeries, b *model.Batch, bs model.BatchSeries) (wakes []func()) {
	for _, f := range s.mu.feeds {
		if matches(m.lbls, f.req.Matchers) && f.take(m, b, bs) && f.req.Wake != nil {
			wakes = append(wakes, f.req.Wake)
		}
	}
	return wakes
}

func (f *feed) take(m *memSeries, b *model.Batch, bs model.BatchSeries) (wake bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fb := &f.mu.batch
	if n := bs.To - bs.From + bs.HTo - bs.HFrom; len(fb.Samples)+n > f.req.Buffer || fb.Lost > 0 {
		fb.Lost += int64(n)
	} else {
		id, ok := f.mu.ids[m]
		if !ok {
			id = uint32(len(f.mu.ids))
			f.mu.ids[m] = id
			fb.Series = append(fb.Series, model.FeedSeries{ID: id, Labels: m.lbls})
		}
		for j := bs.From; j < bs.To; j++ {
			fb.Samples = append(fb.Samples, model.FeedSample{Series: id, T: b.T[j], V: b.V[j]})
		}
		for _, h := range b.Hist[bs.HFrom:bs.HTo] {
			c := copyHist(h)
			fb.Samples = append(fb.Samples, model.FeedSample{Series: id, T: h.T, ST: h.ST, Hist: &c})
		}
	}
	select {
	case f.ready <- struct{}{}:
	default:
	}
	if f.mu.woken || len(fb.Samples) < f.req.WakeAt && fb.Lost == 0 {
		return false
	}
	f.mu.woken = true
	return true
}

// Poll implements model.Feed.
func (f *feed) Poll(dst *model.FeedBatch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	*dst, f.mu.batch = f.mu.batch, model.FeedBatch{Series: dst.Series[:0], Samples: dst.Samples[:0], Cut: math.MinInt64}
	f.mu.woken = false
	return f.mu.err
}

// Next implements model.Feed.
func (f *feed) Next(ctx context.Context, dst *model.FeedBatch) error {
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
func (f *feed) Close() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for i, x := range f.s.mu.feeds {
		if x == f {
			f.s.mu.feeds = append(f.s.mu.feeds[:i], f.s.mu.feeds[i+1:]...)
			break
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.err = model.ErrClosed
}
