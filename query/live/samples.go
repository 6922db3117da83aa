package live

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// sampler passes on the samples of a selector as they are applied.
type sampler struct {
	e     *evaluation
	feed  model.Feed
	batch model.FeedBatch
	names map[uint32]*seriesName // by number in the feed
	hold  time.Time              // until when no backfill is read, since the storage can't be
	gap   bool                   // the feed has failed since known
	// Scratch of publish: the samples by group, and the last group of a timestamp, plus one.
	times  []int64
	groups [][]row
	at     map[int64]int
}

// seriesName keeps a series' labels and its number in the evaluation.
type seriesName struct {
	labels labels.Labels
	named  *named
	group  int // the last that it is in, plus one
}

// buffered is how many samples wait for a run; a run follows a sample at once.
const buffered = 1 << 16

// run passes on what has come, and then serves who waits for backfill.
func (s *sampler) run(ctx context.Context, now time.Time) time.Time {
	err := s.open(ctx, now)
	if err == nil {
		err = s.pass(now)
	}
	if err == nil {
		err = s.fill(ctx, now)
	}
	s.e.opened(err)
	if err != nil {
		s.close()
		s.gap = true
		if ctx.Err() == nil {
			s.e.publish(entry{err: kindOf(err), t: now.UnixMilli()}, 0)
		}
	} else if !s.batch.Lacks {
		s.e.known.Store(now.UnixMilli())
	}
	return now.Add(look)
}

func (s *sampler) open(ctx context.Context, now time.Time) (err error) {
	if s.feed != nil {
		return nil
	}
	s.names, s.at = map[uint32]*seriesName{}, map[int64]int{}
	s.feed, err = s.e.hub.feeder.Subscribe(ctx, &model.FeedRequest{
		Matchers: s.e.plan.matchers, MaxSeries: s.e.hub.opts.MaxSeries, Buffer: buffered,
		Wake: func() { s.e.hub.sched.kick(s.e) },
	})
	if err != nil {
		s.feed = nil
		return err
	}
	if s.gap {
		s.gap = false
		s.e.publish(entry{dropped: Dropped{From: s.e.known.Load(), To: now.UnixMilli()}}, 0)
	}
	return nil
}

func (s *sampler) close() {
	if s.feed != nil {
		s.feed.Close()
		s.feed = nil
	}
}

// pass publishes what the feed has.
func (s *sampler) pass(now time.Time) error {
	err := s.feed.Poll(&s.batch)
	s.publish(now) // what came before the error, too
	return err
}

// publish publishes the batch: samples of one timestamp together, as far as that
// keeps the order of each series.
func (s *sampler) publish(now time.Time) {
	for _, d := range s.batch.Series {
		s.names[d.ID] = &seriesName{labels: d.Labels}
	}
	s.group()
	events := s.e.events[:0]
	for _, step := range s.e.number(s.times, s.groups) {
		events = append(events, entry{step: step, t: step.T})
	}
	if s.batch.Lost > 0 || s.batch.Reset {
		events = append(events, entry{dropped: Dropped{Count: s.batch.Lost, From: s.e.known.Load(), To: now.UnixMilli()}})
	}
	if s.e.events = events; len(events) > 0 {
		s.e.publishAll(events, 0)
	}
	if len(s.batch.Samples) > maxScratch {
		s.times, s.groups, s.at = nil, nil, map[int64]int{}
	}
}

// maxScratch is up to how many samples a batch's scratch is kept: most bring a few, and
// there are many evaluations.
const maxScratch = 64

// group sorts the batch into groups, in order.
func (s *sampler) group() {
	s.times, s.groups = s.times[:0], s.groups[:0]
	for i := range s.batch.Samples {
		x := &s.batch.Samples[i]
		n := s.names[x.Series]
		g := s.at[x.T]
		if g <= n.group { // it is in that one, or in a later one, already
			s.times = append(s.times, x.T)
			if g = len(s.times); g <= cap(s.groups) {
				s.groups = s.groups[:g]
				s.groups[g-1] = s.groups[g-1][:0]
			} else {
				s.groups = append(s.groups, nil)
			}
			s.at[x.T] = g
		}
		n.group = g
		s.groups[g-1] = append(s.groups[g-1], row{labels: n.labels, value: valueOf(x), slot: &n.named})
	}
	for i := range s.batch.Samples {
		s.names[s.batch.Samples[i].Series].group = 0
	}
	clear(s.at)
}

func valueOf(x *model.FeedSample) Value {
	if x.Hist != nil {
		return Value{H: x.Hist.Float().Copy()}
	}
	return Value{V: x.V}
}

// stored is a sample on its way from the storage into a backfill.
type stored struct {
	t   int64
	row row
}

// fill serves the subscriptions that wait for backfill: all that is stored goes to
// them now, and what the feed brings from here on follows.
func (s *sampler) fill(ctx context.Context, now time.Time) error {
	e := s.e
	from, ok := e.oldestAsked()
	if !ok || now.Before(s.hold) || e.held.Load() >= int64(e.hub.opts.MaxSamples) { // who takes what is held wakes us
		return nil
	}
	list, err := s.read(ctx, from)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && passing(err) {
		s.hold = now.Add(look)
		return nil
	}
	// What the selection shows the feed has given: what it gives now goes live, and
	// what of that is in the selection too must not come twice.
	if ferr := s.feed.Poll(&s.batch); ferr != nil {
		s.publish(now)
		return ferr
	}
	list = s.without(list)
	var times []int64
	var groups [][]row
	b := &backlog{e: e, n: int64(len(list))}
	for _, x := range list {
		if n := len(times); n == 0 || times[n-1] != x.t {
			times, groups = append(times, x.t), append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], x.row)
	}
	steps := e.number(times, groups)
	for _, sub := range e.handSamples(steps, b, now.UnixMilli(), err) {
		if sub.wake != nil {
			sub.wake()
		}
	}
	s.publish(now)
	return nil
}

// backlog is what a backfill has selected, for those who wait for it together.
type backlog struct {
	e    *evaluation
	n    int64 // samples
	refs atomic.Int32
}

// release is for each of them, once it needs it no longer.
func (b *backlog) release() {
	if b != nil && b.refs.Add(-1) == 0 {
		b.e.held.Add(-b.n)
		b.e.hub.sched.kick(b.e) // others may wait for room
	}
}

// read returns what is stored from a time on, in order of time.
func (s *sampler) read(ctx context.Context, from int64) ([]stored, error) {
	o := s.e.hub.opts
	sel, err := s.e.hub.reader.Select(ctx, &model.SelectRequest{MinT: from, MaxT: maxTime, Matchers: s.e.plan.matchers, MaxSeries: o.MaxSeries})
	if err != nil {
		return nil, err
	}
	defer sel.Close()
	var list []stored
	var c model.Columns
	for _, x := range sel.Series {
		c.Reset()
		if err := x.Read(&c); err != nil {
			return nil, err
		}
		ls := x.Labels()
		for i, t := range c.T {
			list = append(list, stored{t, row{labels: ls, value: Value{V: c.V[i]}}})
		}
		for i := range c.Hist {
			list = append(list, stored{c.Hist[i].T, row{labels: ls, value: Value{H: c.Hist[i].Float()}}})
		}
		if len(list) > o.MaxSamples {
			return nil, fmt.Errorf("%w: the backfill has more than %d samples; ask for a shorter one", model.ErrLimit, o.MaxSamples)
		}
	}
	slices.SortStableFunc(list, func(a, b stored) int { return cmp.Compare(a.t, b.t) })
	return list, nil
}

// without takes out what the batch has too.
func (s *sampler) without(list []stored) []stored {
	type key struct {
		series string
		t      int64
	}
	live := map[key][]uint64{}
	labelsOf := map[uint32]labels.Labels{}
	for _, d := range s.batch.Series {
		labelsOf[d.ID] = d.Labels
	}
	for i := range s.batch.Samples {
		x := &s.batch.Samples[i]
		ls, fresh := labelsOf[x.Series]
		if !fresh {
			ls = s.names[x.Series].labels
		}
		k := key{string(ls.Bytes(nil)), x.T}
		live[k] = append(live[k], math.Float64bits(x.V))
	}
	if len(live) == 0 {
		return list
	}
	return slices.DeleteFunc(list, func(x stored) bool {
		bits, ok := live[key{string(x.row.labels.Bytes(nil)), x.t}]
		return ok && (x.row.value.H != nil || slices.Contains(bits, math.Float64bits(x.row.value.V)))
	})
}

// oldestAsked returns the time from which the backfill of those who wait begins.
func (e *evaluation) oldestAsked() (from int64, ok bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, s := range e.mu.asking {
		if s.fill != nil && (!ok || s.fill.next < from) {
			from, ok = s.fill.next, true
		}
	}
	return from, ok
}

// handSamples gives those who wait their backfill, and moves their cursors to here.
func (e *evaluation) handSamples(steps []*Step, b *backlog, now int64, err error) (wakes []*Subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b.refs.Add(1) // ours, while others come
	e.held.Add(b.n)
	defer b.release()
	for _, s := range e.mu.asking {
		f := s.fill
		if f == nil {
			continue
		}
		i, _ := slices.BinarySearchFunc(steps, f.next, func(x *Step, t int64) int { return cmp.Compare(x.T, t) })
		f.missing = Dropped{From: f.next, To: now}
		f.take(steps[i:], maxTime+1, e.mu.series.next, kindOf(err))
		s.seq = e.mu.ring.head
		b.refs.Add(1)
		f.backlog = b
		if s.armed.CompareAndSwap(true, false) {
			wakes = append(wakes, s)
		}
	}
	e.mu.asking = nil
	return wakes
}
