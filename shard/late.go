package shard

import (
	"cmp"
	"slices"
)

// lateNew is how many late samples are looked through one by one.
const lateNew = 32

// late is floats out of order of time, found by time in logarithmic time however many there
// are: a backfill of years into a series that goes on is all late. Snapshots share what it
// points to: runs and fresh are only ever appended to.
type late struct {
	runs  [][]sample // each in order of time, a time once; what is later in the log is in a later run, or in fresh
	fresh []sample   // in order of the log
}

// find returns the sample that is the last in the log of those at t.
func (l *late) find(t int64) (sample, bool) {
	if l == nil {
		return sample{}, false
	}
	for i := len(l.fresh) - 1; i >= 0; i-- {
		if l.fresh[i].t == t {
			return l.fresh[i], true
		}
	}
	for i := len(l.runs) - 1; i >= 0; i-- {
		run := l.runs[i]
		if t < run[0].t || t > run[len(run)-1].t {
			continue
		}
		if k, ok := slices.BinarySearchFunc(run, t, func(x sample, t int64) int { return cmp.Compare(x.t, t) }); ok {
			return run[k], true
		}
	}
	return sample{}, false
}

// add stores a sample, the last in the log. Each run is at least twice as long as the next
// one, so a sample is copied as often as the number of them has binary digits, at most.
func (l *late) add(x sample) {
	if l.fresh = append(l.fresh, x); len(l.fresh) < lateNew {
		return
	}
	run := ordered(l.fresh)
	l.fresh = nil
	for n := len(l.runs); n > 0; n-- {
		before := l.runs[n-1]
		if before[len(before)-1].t >= run[0].t && len(before) >= 2*len(run) {
			break
		}
		run = joined(before, run)
		l.runs = l.runs[:n-1]
	}
	l.runs = append(l.runs, run)
}

// blobPlaces finds a store's histograms or exemplars by time without looking through all of
// them, once one has come out of order: a backfill may be all of that.
type blobPlaces struct {
	at   map[int64]int // the last of each time among the first upto; nil while all are in order
	upto int
}

// last returns the place of the last of the blobs at t, and -1 if there is none. It is asked
// before each is added.
func (p *blobPlaces) last(of []blob, t int64) int {
	n := len(of)
	if p.at == nil {
		switch {
		case n == 0 || of[n-1].t < t:
			return -1
		case of[n-1].t == t:
			return n - 1
		}
		p.at = make(map[int64]int, n)
	}
	for ; p.upto < n; p.upto++ {
		p.at[of[p.upto].t] = p.upto
	}
	if i, ok := p.at[t]; ok {
		return i
	}
	return -1
}

// forget is for blobs that have gone, or others among them.
func (p *blobPlaces) forget() { *p = blobPlaces{at: map[int64]int{}} }

// ordered returns samples in order of time, the last of each time.
func ordered(xs []sample) []sample {
	xs = slices.Clone(xs)
	slices.SortStableFunc(xs, func(a, b sample) int { return cmp.Compare(a.t, b.t) })
	out := xs[:0]
	for i, x := range xs {
		if i+1 == len(xs) || xs[i+1].t != x.t {
			out = append(out, x)
		}
	}
	return out
}

// joined returns the samples of two runs, the newer one's where they have the same time.
func joined(older, newer []sample) []sample {
	if older[len(older)-1].t < newer[0].t {
		return append(older, newer...)
	}
	out := make([]sample, 0, len(older)+len(newer))
	for len(older) > 0 && len(newer) > 0 {
		a, b := older[0], newer[0]
		if a.t < b.t {
			out, older = append(out, a), older[1:]
			continue
		}
		if out, newer = append(out, b), newer[1:]; a.t == b.t {
			older = older[1:]
		}
	}
	return append(append(out, older...), newer...)
}

// each calls fn with all samples; of those of one time the last in the log comes last.
func (l *late) each(fn func(sample)) {
	if l == nil {
		return
	}
	for _, run := range l.runs {
		for _, x := range run {
			fn(x)
		}
	}
	for _, x := range l.fresh {
		fn(x)
	}
}

// snapshot returns what stays as it is while samples are added to l.
func (l *late) snapshot() *late {
	if l == nil {
		return nil
	}
	return &late{runs: slices.Clone(l.runs), fresh: l.fresh}
}
