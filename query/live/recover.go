package live

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// sample is one on its way from the storage to subscribers.
type sample struct {
	t   int64
	row row
}

// recover sends what the feed did not bring: a shard has moved, or the node that it came
// from was lost. It reads as much as a client is sent that resumes, and leaves out what the
// ring still has. What can't be read for good, or is more than the ring may hold, is told as
// dropped.
func (s *sampler) recover(ctx context.Context, now time.Time) error {
	e, from := s.e, s.owed
	if from == 0 || now.Before(s.hold) || e.light() {
		return nil
	}
	s.owed = 0 // what is lost from here on is another gap
	if e.subscribers() == 0 {
		return nil
	}
	steps, why, err := s.stored(ctx, from-e.hub.opts.horizon()-grace.Milliseconds(), now)
	switch {
	case err != nil:
		s.owed = from
		return err
	case why != nil && passing(why):
		s.owed, s.hold = from, now.Add(look)
		return nil
	}
	steps, more := e.unsent(steps)
	events := e.events[:0]
	if more > 0 || why != nil {
		events = append(events, entry{dropped: Dropped{Count: int64(more), From: from, To: now.UnixMilli()}})
	}
	if len(steps) > 0 {
		events = append(events, entry{gap: steps})
	}
	if e.events = events; len(events) > 0 {
		e.publishAll(events, 0)
	}
	s.publish(now)
	return nil
}

// stored returns the samples from a time on, by time. What the selection shows the feed has
// given; what it gives by then is in the batch, goes out after them, and is not among
// them. err is the feed's, or the end of ctx, why what the storage says.
func (s *sampler) stored(ctx context.Context, from int64, now time.Time) (steps []*Step, why, err error) {
	list, why := s.read(ctx, from)
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	if why != nil && passing(why) {
		return nil, why, nil
	}
	if err := s.feed.Poll(&s.batch); err != nil {
		s.publish(now) // what came before the error
		return nil, nil, err
	}
	var times []int64
	var groups [][]row
	for _, x := range s.without(list) {
		if n := len(times); n == 0 || times[n-1] != x.t {
			times, groups = append(times, x.t), append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], x.row)
	}
	return s.e.number(times, groups), why, nil
}

// read returns what is stored from a time on, in order of time.
func (s *sampler) read(ctx context.Context, from int64) ([]sample, error) {
	o := s.e.hub.opts
	sel, err := model.Select(ctx, s.e.hub.reader, &model.SelectRequest{MinT: from, MaxT: maxTime, Matchers: s.e.plan.matchers, MaxSeries: o.MaxSeries})
	if err != nil {
		return nil, err
	}
	defer sel.Close()
	var list []sample
	var c model.Columns
	for _, x := range sel.Series {
		c.Reset()
		if err := x.Read(&c); err != nil {
			return nil, err
		}
		ls := x.Labels()
		for i, t := range c.T {
			list = append(list, sample{t, row{labels: ls, value: Value{V: c.V[i]}}})
		}
		for i := range c.Hist {
			list = append(list, sample{c.Hist[i].T, row{labels: ls, value: Value{H: c.Hist[i].Float()}}})
		}
		if len(list) > o.MaxSamples {
			return nil, fmt.Errorf("%w: the backfill has more than %d samples; ask for a shorter one", model.ErrLimit, o.MaxSamples)
		}
	}
	slices.SortStableFunc(list, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
	return list, nil
}

// without takes out what the batch has too.
func (s *sampler) without(list []sample) []sample {
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
	return slices.DeleteFunc(list, func(x sample) bool {
		bits, ok := live[key{string(x.row.labels.Bytes(nil)), x.t}]
		return ok && (x.row.value.H != nil || slices.Contains(bits, math.Float64bits(x.row.value.V)))
	})
}

// unsent returns what of the steps is not the newest that the ring has of a series and time, the
// newest of them if these are more than may take the place of what the ring has, and how
// many samples it left out for that.
func (e *evaluation) unsent(steps []*Step) (out []*Step, more int) {
	type key struct {
		series uint32
		t      int64
	}
	e.mu.RLock()
	r := &e.mu.ring
	sent := make(map[key]Value, r.values)
	for seq := r.tail; seq < r.head; seq++ {
		r.get(seq).samples(func(x *Step, v Value) { sent[key{v.Series, x.T}] = v })
	}
	e.mu.RUnlock()
	room := e.hub.opts.RingValues / 2
	for i := len(steps) - 1; i >= 0; i-- {
		x := &Step{T: steps[i].T}
		for _, v := range steps[i].Values {
			if old, ok := sent[key{v.Series, x.T}]; !ok || !same(old, v) {
				x.Values = append(x.Values, v)
			}
		}
		switch n := len(x.Values); {
		case n == 0:
		case more > 0 || n > room:
			more += n
		default:
			room -= n
			out = append(out, x)
		}
	}
	slices.Reverse(out)
	return out, more
}
