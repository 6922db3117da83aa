package pair

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"

	"github.com/strandline-db/strandline/shard/model"
)

// Bucket is the length of time, in milliseconds, for which one sender is chosen. The
// windows of blocks are multiples of it.
const Bucket = 10 * 60 * 1000

// gap, in intervals, is what is filled from another sender; spaceBefore and spaceAfter
// how far from its neighbours a filled-in sample must lie. An other sender's samples have any
// phase: with these, a gap of n missing samples gets n.
const (
	gap         = 1.5
	spaceBefore = 0.5
	spaceAfter  = 0.5
)

// Chooser is the scratch memory of choosing. The zero value is ready.
type Chooser struct {
	lines  [][]at // by sender: all its samples in order of time
	window [][]at // by sender: those of the bucket at hand
	others []at   // those of all senders but the winner
	chosen []at
	spare  []at
	gaps   []int64
}

// Outcome is what came of one choice.
type Outcome struct {
	Dropped  int // samples that were not chosen
	Switches int // times that a chosen sample is of another sender than the one before it
}

// at is one sample of one sender.
type at struct {
	t      int64
	sender int
	i      int // in T and V, or in Hist
	hist   bool
	stale  bool
}

// Merge appends the chosen samples to dst, in order of time, and counts. parts are the senders'
// samples, in order of the replica label's value, each in order of time.
func (c *Chooser) Merge(dst *model.Columns, parts []*model.Columns) Outcome {
	var out Outcome
	for _, p := range parts {
		out.Dropped += len(p.T) + len(p.Hist)
	}
	last := -1
	c.choose(parts, func(x at) {
		p := parts[x.sender]
		out.Dropped--
		if last >= 0 && last != x.sender {
			out.Switches++
		}
		last = x.sender
		if x.hist {
			dst.Hist = append(dst.Hist, p.Hist[x.i])
			return
		}
		if len(p.ST) > 0 && len(dst.ST) < len(dst.T) {
			dst.ST = append(dst.ST, make([]int64, len(dst.T)-len(dst.ST))...)
		}
		if len(p.ST) > 0 {
			dst.ST = append(dst.ST, p.ST[x.i])
		} else if len(dst.ST) > 0 {
			dst.ST = append(dst.ST, 0)
		}
		dst.T, dst.V = append(dst.T, p.T[x.i]), append(dst.V, p.V[x.i])
	})
	return out
}

// Keep drops from each part the samples that are not chosen.
func (c *Chooser) Keep(parts []*model.Columns) {
	floats, hists := make([]int, len(parts)), make([]int, len(parts))
	c.choose(parts, func(x at) { // chosen ones come in order, so that each moves down or stays
		p := parts[x.sender]
		if x.hist {
			k := hists[x.sender]
			p.Hist[k] = p.Hist[x.i]
			hists[x.sender]++
			return
		}
		k := floats[x.sender]
		p.T[k], p.V[k] = p.T[x.i], p.V[x.i]
		if len(p.ST) > 0 {
			p.ST[k] = p.ST[x.i]
		}
		floats[x.sender]++
	})
	for s, p := range parts {
		n := floats[s]
		p.T, p.V = p.T[:n], p.V[:n]
		if len(p.ST) > 0 {
			p.ST = p.ST[:n]
		}
		clear(p.Hist[hists[s]:])
		p.Hist = p.Hist[:hists[s]]
	}
}

// choose calls emit for each chosen sample, in order of time.
func (c *Chooser) choose(parts []*model.Columns, emit func(at)) {
	c.lines = c.lines[:0]
	for s, p := range parts {
		c.lines = append(c.lines, line(s, p))
	}
	for {
		first := int64(math.MaxInt64)
		for _, l := range c.lines {
			if len(l) > 0 {
				first = min(first, l[0].t)
			}
		}
		if first == math.MaxInt64 {
			return
		}
		start := first - mod(first, Bucket)
		c.window = c.window[:0]
		for s, l := range c.lines {
			n, _ := slices.BinarySearchFunc(l, start+Bucket, func(x at, t int64) int { return compare(x.t, t) })
			c.window = append(c.window, l[:n])
			c.lines[s] = l[n:]
		}
		for _, x := range c.chooseBucket(start) {
			emit(x)
		}
	}
}

// line puts a sender's floats and histograms into one order of time.
func line(s int, p *model.Columns) []at {
	out := make([]at, 0, len(p.T)+len(p.Hist))
	i, k := 0, 0
	for i < len(p.T) || k < len(p.Hist) {
		if k == len(p.Hist) || i < len(p.T) && p.T[i] < p.Hist[k].T {
			out = append(out, at{t: p.T[i], sender: s, i: i, stale: value.IsStaleNaN(p.V[i])})
			i++
		} else {
			out = append(out, at{t: p.Hist[k].T, sender: s, i: k, hist: true, stale: staleHistogram(&p.Hist[k])})
			k++
		}
	}
	return out
}

func staleHistogram(h *model.HistogramSample) bool {
	if h.FH != nil {
		return value.IsStaleNaN(h.FH.Sum)
	}
	return value.IsStaleNaN(h.H.Sum)
}

// chooseBucket returns the bucket's chosen samples, valid until the next call.
func (c *Chooser) chooseBucket(start int64) []at {
	winner, most := 0, -1
	for s, w := range c.window {
		if n := live(w); n > most && len(w) > 0 {
			winner, most = s, n
		}
	}
	chosen := c.window[winner]
	interval := c.interval(chosen)
	if !gappy(chosen, start, interval) {
		return chosen
	}
	c.others = c.others[:0]
	for s, w := range c.window {
		if s != winner {
			c.others = append(c.others, w...)
		}
	}
	slices.SortStableFunc(c.others, func(a, b at) int { return compare(a.t, b.t) })
	c.chosen = append(c.chosen[:0], chosen...)
	c.fill(c.others, start, interval)
	return c.chosen
}

// gappy tells whether there is anything to fill.
func gappy(w []at, start, interval int64) bool {
	prev := start - interval/2
	for _, x := range w {
		if wide(prev, x.t, interval) {
			return true
		}
		prev = x.t
	}
	return wide(prev, start+Bucket+interval/2, interval)
}

func wide(prev, next, interval int64) bool { return float64(next-prev) > gap*float64(interval) }

// live counts samples that are no stale markers.
func live(w []at) (n int) {
	for _, x := range w {
		if !x.stale {
			n++
		}
	}
	return n
}

// interval is the median distance of a sender's samples; the bucket, if it has but one.
func (c *Chooser) interval(w []at) int64 {
	c.gaps = c.gaps[:0]
	for i := 1; i < len(w); i++ {
		c.gaps = append(c.gaps, w[i].t-w[i-1].t)
	}
	if len(c.gaps) == 0 {
		return Bucket
	}
	slices.Sort(c.gaps)
	return c.gaps[len(c.gaps)/2]
}

// fill puts others' samples into the gaps of what is chosen, the earliest that fits
// first. The bucket's ends count as samples half an interval beyond them.
func (c *Chooser) fill(other []at, start, interval int64) {
	i := float64(interval)
	prev := start - interval/2
	out := c.spare[:0]
	for k := 0; k <= len(c.chosen); k++ {
		next := start + Bucket + interval/2
		if k < len(c.chosen) {
			next = c.chosen[k].t
		}
		for len(other) > 0 && other[0].t <= prev {
			other = other[1:]
		}
		wide := wide(prev, next, interval)
		for len(other) > 0 && other[0].t < next {
			x := other[0]
			other = other[1:]
			if wide && !x.stale && float64(x.t-prev) >= spaceBefore*i && float64(next-x.t) >= spaceAfter*i {
				out = append(out, x)
				prev = x.t
			}
		}
		if k < len(c.chosen) {
			out = append(out, c.chosen[k])
			prev = next
		}
	}
	c.chosen, c.spare = out, c.chosen
}

func compare[T int | int64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// mod is the remainder that is never negative.
func mod(t, n int64) int64 { return ((t % n) + n) % n }
