package live

import (
	"cmp"
	"context"
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
	hold  time.Time              // until when nothing is read, since the storage can't be
	owed  int64                  // samples applied since then, in Unix ms, may not have come by the feed; 0: all have
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

// namesPerSeries is how many names of series are kept for each that there may be: when there
// are more, most are of series that are no more.
const namesPerSeries = 4

// run passes on what has come, and then serves who waits for backfill.
func (s *sampler) run(ctx context.Context, now time.Time) time.Time {
	if len(s.names) > namesPerSeries*s.e.hub.opts.MaxSeries && s.feed != nil {
		s.close()
		s.owe()
	}
	if s.feed == nil && s.e.light() {
		return now
	}
	err := s.open(ctx)
	if err == nil {
		err = s.pass(now)
	}
	if err == nil {
		err = s.recover(ctx, now)
	}
	if err == nil {
		err = s.fill(ctx, now)
	}
	s.e.opened(err)
	if s.e.mu.series.crowded() { // it is only changed here
		s.e.forget(now.UnixMilli())
	}
	switch {
	case err != nil:
		s.close()
		s.owe()
		if ctx.Err() == nil {
			s.e.publish(entry{err: kindOf(err), t: now.UnixMilli()}, 0)
		}
	case s.owed > 0:
		if now.After(s.hold) {
			return now // it has come to owe something just now
		}
	case !s.batch.Lacks:
		s.e.known.Store(now.UnixMilli())
	}
	return now.Add(look)
}

// owe notes that the feed may not bring everything that was applied since known.
func (s *sampler) owe() {
	if s.owed == 0 {
		s.owed = s.e.known.Load()
	}
}

func (s *sampler) open(ctx context.Context) (err error) {
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
	}
	return err
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
	if s.batch.Reset {
		s.owe()
	} else if s.batch.Lost > 0 { // too much for us: reading it again would only add to that
		events = append(events, entry{dropped: Dropped{Count: s.batch.Lost, From: s.e.known.Load(), To: now.UnixMilli()}})
	}
	if s.e.events = events; len(events) > 0 {
		s.e.publishAll(events, 0)
	}
	if len(events) > maxScratch {
		s.e.events = nil
	}
	if len(s.batch.Samples) > maxScratch {
		s.times, s.groups, s.at = nil, nil, map[int64]int{}
	}
}

// maxScratch is up to how many samples, or events, a batch's scratch is kept: most bring a
// few, and there are many evaluations.
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

// fill serves the subscriptions that wait for backfill: all that is stored goes to
// them now, and what the feed brings from here on follows.
func (s *sampler) fill(ctx context.Context, now time.Time) error {
	e := s.e
	from, ok := e.oldestAsked()
	if !ok || now.Before(s.hold) || e.light() || e.held.Load() >= int64(e.hub.opts.MaxSamples) { // who takes what is held wakes us
		return nil
	}
	steps, why, err := s.stored(ctx, from, now)
	switch {
	case err != nil:
		return err
	case why != nil && passing(why):
		s.hold = now.Add(look)
		return nil
	}
	b := &backlog{e: e, n: int64(samplesOf(steps))}
	e.wake(e.handSamples(steps, b, now.UnixMilli(), why))
	s.publish(now)
	return nil
}

func samplesOf(steps []*Step) (n int) {
	for _, x := range steps {
		n += len(x.Values)
	}
	return n
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
