package live_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
)

// gaps is a storage whose feeds lose what comes while they are deaf, as they do where a
// shard moves in a cluster, and tell so afterwards; and which can't be read while it is blind.
type gaps struct {
	model.Feeder
	model.Reader
	deaf, blind atomic.Bool
	reset       atomic.Pointer[string]        // the metric whose feeds tell once that they lost something
	stalled     atomic.Pointer[chan struct{}] // what a read waits for
	reads       atomic.Int32                  // that wait
	lost        chan struct{}                 // capacity 1: a deaf feed was polled
}

func newGaps() *gaps { return &gaps{lost: make(chan struct{}, 1)} }

// Subscribe implements model.Feeder.
func (g *gaps) Subscribe(ctx context.Context, req *model.FeedRequest) (model.Feed, error) {
	f, err := g.Feeder.Subscribe(ctx, req)
	return &gappyFeed{Feed: f, g: g, metric: req.Matchers[0].Value}, err
}

// SelectAll implements model.Reader.
func (g *gaps) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	if g.blind.Load() {
		return nil, model.ErrUnavailable
	}
	if wait := g.stalled.Load(); wait != nil {
		g.reads.Add(1)
		<-*wait
	}
	return g.Reader.SelectAll(ctx, reqs)
}

type gappyFeed struct {
	model.Feed
	g      *gaps
	metric string
	lost   bool
}

// Poll implements model.Feed.
func (f *gappyFeed) Poll(dst *model.FeedBatch) error {
	err := f.Feed.Poll(dst)
	switch {
	case f.g.deaf.Load():
		dst.Samples, dst.Lacks, f.lost = dst.Samples[:0], true, true
		select {
		case f.g.lost <- struct{}{}:
		default:
		}
	case f.lost:
		dst.Reset, f.lost = true, false
	}
	if of := f.g.reset.Load(); of != nil && *of == f.metric && f.g.reset.CompareAndSwap(of, nil) {
		dst.Reset = true
	}
	return err
}

// lose makes the feeds deaf for the time of fn.
func (r *rig) lose(fn func()) {
	r.gaps.deaf.Store(true)
	fn()
	for range 2 { // the second poll has begun after fn
		select {
		case <-r.gaps.lost:
		default:
		}
		r.clock.Advance(2 * time.Second)
		<-r.gaps.lost
	}
	r.gaps.deaf.Store(false)
	r.clock.Advance(time.Second)
}

// TestSamplesGap: what a feed loses comes from the storage, once, in whatever order it was stored.
func TestSamplesGap(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			const horizon = 10 * time.Second
			r := newGappyRig(t, live.Options{Horizon: horizon}, newGaps())
			f := &follower{seen: map[string]int{}}
			f.join(r, live.Request{})
			stored := map[string]bool{}
			n := 0.0
			put := func() {
				n++
				s, t := fmt.Sprint(rng.IntN(3)), r.clock.Now().UnixMilli()+int64(n) // once each
				t -= rng.Int64N(horizon.Milliseconds()) / 1000 * 1000
				r.append(gauge(s, t, n))
				stored[fmt.Sprint(s, " ", t, " ", n)] = true
			}
			some := func() {
				for range rng.IntN(10) {
					put()
				}
			}
			for range 15 {
				some()
				f.until(r, "all has come", func() bool { return covers(f.seen, stored) })
				r.lose(func() {
					if rng.IntN(2) == 0 {
						f.poll() // or it has not come to what is in the ring
					}
					some()
					r.gaps.blind.Store(rng.IntN(3) == 0)
				})
				some()
				r.gaps.blind.Store(false)
				r.clock.Advance(2 * time.Second)
				f.until(r, "all has come after a gap", func() bool { return covers(f.seen, stored) })
				if now := r.clock.Now().UnixMilli(); f.Since() > now {
					t.Fatalf("at %d all is known up to %d", now, f.Since())
				}
			}
			for k, n := range f.seen {
				if n > 1 || !stored[k] {
					t.Errorf("%s came %d times", k, n)
				}
			}
			if len(f.drops)+len(f.errs) > 0 {
				t.Errorf("dropped %v, errors %v", f.drops, f.errs)
			}
		})
	}
}

// TestSamplesGapTooLarge: of more than is held for slow subscribers the newest come, and the
// rest is told.
func TestSamplesGapTooLarge(t *testing.T) {
	r := newGappyRig(t, live.Options{RingValues: 20}, newGaps())
	f := &follower{seen: map[string]int{}}
	f.join(r, live.Request{})
	key := func(i int) string { return fmt.Sprint("a ", start.UnixMilli()+int64(i), " ", i) }
	r.lose(func() {
		for i := range 30 {
			r.append(gauge("a", start.UnixMilli()+int64(i), float64(i)))
		}
	})
	f.until(r, "the newest has come", func() bool { return f.seen[key(29)] > 0 })
	if len(f.drops) != 1 || f.drops[0].Count != 20 || len(f.seen) != 10 || f.seen[key(20)] == 0 {
		t.Errorf("dropped %v, came %v", f.drops, f.seen)
	}
}

// TestStalledReads: while the storage answers no read, as in a cluster that looks for leaders, queries that
// have what they need go on.
func TestStalledReads(t *testing.T) {
	r := newGappyRig(t, live.Options{Delay: -1, Workers: 1, QueryWorkers: 3}, newGaps())
	samples := &follower{seen: map[string]int{}}
	samples.join(r, live.Request{})
	c := r.subscribe(live.Request{Query: "m"})
	step := func(i int) {
		t.Helper()
		at := start.UnixMilli() + int64(i)*1000
		r.append(gauge("a", at, float64(i)))
		r.clock.Advance(time.Second)
		c.until(at)
	}
	step(0)
	wait := make(chan struct{})
	release := sync.OnceFunc(func() {
		r.gaps.stalled.Store(nil)
		close(wait)
	})
	t.Cleanup(release) // before the hub closes, which waits for reads
	r.gaps.stalled.Store(&wait)
	r.subscribe(live.Request{Query: "sum(m)"})
	samples.Close()
	samples.join(r, live.Request{After: start.UnixMilli()})
	samples.poll() // asks for what was stored meanwhile
	for deadline := time.Now().Add(30 * time.Second); r.gaps.reads.Load() < 2; {
		if time.Now().After(deadline) {
			t.Fatal("there are no two reads")
		}
		r.clock.Advance(time.Second)
		time.Sleep(time.Millisecond) // between two looks
	}
	last := int(r.clock.Now().Sub(start) / time.Second)
	for i := range 20 {
		step(last + i)
	}
	release()
	samples.until(r, "all has come", func() bool { return len(samples.seen) >= 21 })
}

// TestStalledResets: an evaluation that must read the storage in the midst of its steps, and waits for
// it, holds up no other, though these have but one worker; afterwards it has all its steps.
func TestStalledResets(t *testing.T) {
	metric := "m"
	for _, x := range []struct {
		name, query string
		most        int // samples
		cause       func(r *rig, now int64)
	}{
		{"lost", `sum(m)`, 20_000, func(r *rig, _ int64) { r.gaps.reset.Store(&metric) }},
		{"histograms", `sum(m)`, 20_000, func(r *rig, now int64) {
			b := gauge("h", now, 0)
			b.T, b.V, b.Series[0].To, b.Series[0].HTo = nil, nil, 0, 1
			b.Hist = []model.HistogramSample{{T: now, H: &histogram.Histogram{Count: 3, Sum: 2, Schema: 1, ZeroCount: 3}}}
			r.append(b)
		}},
		{"too much", `sum(m)`, 1000, func(r *rig, now int64) {
			for i := range 200 {
				r.append(gauge(fmt.Sprint("s", i), now, 1))
			}
		}},
		{"churn", `sum(count_over_time(m[100ms]))`, 20_000, func(r *rig, now int64) {
			b := &model.Batch{}
			for i := range 1010 {
				b.Series = append(b.Series, model.BatchSeries{Key: gauge(fmt.Sprint("s", i), now, 1).Series[0].Key, From: i, To: i + 1})
				b.T, b.V = append(b.T, now), append(b.V, 1)
			}
			r.append(b)
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			r := newGappyRig(t, live.Options{Delay: -1, Workers: 1, QueryWorkers: 1, Horizon: 3 * time.Second, MaxSamples: x.most}, newGaps())
			testStalledReset(t, r, x.query, func(now int64) { x.cause(r, now) })
		})
	}
}

func testStalledReset(t *testing.T, r *rig, query string, cause func(now int64)) {
	now := start.UnixMilli()
	other, c := r.subscribe(live.Request{Query: `n`}), r.subscribe(live.Request{Query: query})
	key := model.AppendKey(nil, labels.FromStrings("__name__", "n"))
	step := func() {
		t.Helper()
		now += 1000
		r.append(gauge("a", now-500, float64(now%7000)))
		r.append(&model.Batch{Series: []model.BatchSeries{{Key: key, To: 1}}, T: []int64{now}, V: []float64{1}})
		r.clock.Advance(time.Second)
		other.until(now)
	}
	for range 3 {
		step()
		c.until(now)
	}
	wait := make(chan struct{})
	release := sync.OnceFunc(func() {
		r.gaps.stalled.Store(nil)
		close(wait)
	})
	t.Cleanup(release) // before the hub closes, which waits for reads
	r.gaps.stalled.Store(&wait)
	cause(now + 300)
	for range 30 {
		step()
	}
	if r.gaps.reads.Load() == 0 {
		t.Error("the storage was not read")
	}
	release()
	for range 5 {
		step()
		c.until(now)
	}
	for at := start.UnixMilli() + 1000; at <= now; at += 1000 {
		if c.steps[at] == nil {
			t.Errorf("%s: the step at %d is missing", query, at)
		}
	}
	c.settle()
}

// TestStepsWaitForWhatLacks: while a feed may lack something no step is computed from it; those
// that waited come when it is whole again, though they are older than what is corrected.
func TestStepsWaitForWhatLacks(t *testing.T) {
	r := newGappyRig(t, live.Options{Delay: -1, Horizon: time.Second}, newGaps())
	at := func(i int64) int64 { return start.UnixMilli() + i*1000 }
	c := r.subscribe(live.Request{Query: `sum(m)`})
	r.append(gauge("a", at(1), 1))
	r.clock.Advance(time.Second)
	c.until(at(1))
	r.lose(func() { r.append(gauge("a", at(2), 2)) })
	c.until(at(6))
	for i := range int64(6) {
		c.check(at(i + 1))
	}
}
