package live

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"

	"github.com/strandline-db/strandline/shard/model"
)

// window is one series of an incremental evaluation: its samples as far back as a step
// can need them, in order of time, one a timestamp.
type window struct {
	labels labels.Labels
	ts     []int64
	vs     []float64
	stale  int     // how many of vs are stale markers, at least
	hist   []int64 // timestamps of histograms; none is in ts
	out    *output // where its values go
}

// put stores a sample, which replaces what is at its timestamp, and returns by how
// many samples the window has grown.
func (w *window) put(t int64, v float64) int {
	if len(w.hist) > 0 {
		w.hist = remove(w.hist, t)
	}
	if value.IsStaleNaN(v) {
		w.stale++
	}
	if n := len(w.ts); n == 0 || w.ts[n-1] < t {
		w.ts, w.vs = append(w.ts, t), append(w.vs, v)
		return 1
	}
	i, found := slices.BinarySearch(w.ts, t)
	if found {
		w.vs[i] = v
		return 0
	}
	w.ts, w.vs = slices.Insert(w.ts, i, t), slices.Insert(w.vs, i, v)
	return 1
}

// putHist notes a histogram, in place of what is at its timestamp.
func (w *window) putHist(t int64) int {
	if i, found := slices.BinarySearch(w.ts, t); found {
		w.ts, w.vs = slices.Delete(w.ts, i, i+1), slices.Delete(w.vs, i, i+1)
	}
	if i, found := slices.BinarySearch(w.hist, t); !found {
		w.hist = slices.Insert(w.hist, i, t)
	}
	return 1 // at most; what is counted too much goes with the next trim
}

func remove(ts []int64, t int64) []int64 {
	if i, found := slices.BinarySearch(ts, t); found {
		return slices.Delete(ts, i, i+1)
	}
	return ts
}

// load makes the window what a selection says.
func (w *window) load(c *model.Columns) {
	w.ts, w.vs = append(w.ts[:0], c.T...), append(w.vs[:0], c.V...)
	w.hist = w.hist[:0]
	for i := range c.Hist {
		w.hist = append(w.hist, c.Hist[i].T)
	}
	w.stale = 0
	for _, v := range w.vs {
		if value.IsStaleNaN(v) {
			w.stale++
		}
	}
}

// trim drops the samples before t, now or once they are worth moving the others for,
// and returns how many are left.
func (w *window) trim(t int64) int {
	if half := len(w.ts) / 2; half < len(w.ts) && w.ts[half] < t { // no other place is looked at before that
		i := upTo(w.ts, t-1)
		w.ts, w.vs = append(w.ts[:0], w.ts[i:]...), append(w.vs[:0], w.vs[i:]...)
		if len(w.ts) == 0 {
			w.ts, w.vs, w.stale = nil, nil, 0
		}
	}
	if len(w.hist) > 0 {
		i, _ := slices.BinarySearch(w.hist, t)
		w.hist = append(w.hist[:0], w.hist[i:]...)
	}
	return len(w.ts) + len(w.hist)
}

// between returns the positions in ts of the samples in (from, to].
func (w *window) between(from, to int64) (i, j int) {
	j = upTo(w.ts, to)
	return upTo(w.ts[:j], from), j
}

// upTo returns how many of ts are at most t. It searches from the end, where the new ones
// are: of the others hardly any are in the processor's caches from one step to the next.
func upTo(ts []int64, t int64) int {
	to, step := len(ts), 1
	for to > 0 && ts[max(to-step, 0)] > t {
		to = max(to-step, 0)
		step *= 2
	}
	from := max(to-step, 0)
	i, _ := slices.BinarySearch(ts[from:to], t+1)
	return from + i
}

// histIn tells whether there is a histogram in (from, to].
func (w *window) histIn(from, to int64) bool {
	if len(w.hist) == 0 {
		return false
	}
	i, _ := slices.BinarySearch(w.hist, from+1)
	return i < len(w.hist) && w.hist[i] <= to
}

// newest returns the sample at t: the newest in (t-lookback, t], if it is no stale marker.
func (w *window) newest(t, lookback int64) (float64, bool) {
	i, j := w.between(t-lookback, t)
	if i == j || value.IsStaleNaN(w.vs[j-1]) {
		return 0, false
	}
	return w.vs[j-1], true
}

// scratch holds a window's samples without its stale markers.
type scratch struct {
	ts []int64
	vs []float64
}

// floats returns the samples in (from, to] that are no stale markers.
func (w *window) floats(from, to int64, s *scratch) ([]int64, []float64) {
	i, j := w.between(from, to)
	if w.stale == 0 || !slices.ContainsFunc(w.vs[i:j], value.IsStaleNaN) {
		return w.ts[i:j], w.vs[i:j]
	}
	s.ts, s.vs = s.ts[:0], s.vs[:0]
	for ; i < j; i++ {
		if !value.IsStaleNaN(w.vs[i]) {
			s.ts, s.vs = append(s.ts, w.ts[i]), append(s.vs, w.vs[i])
		}
	}
	return s.ts, s.vs
}
