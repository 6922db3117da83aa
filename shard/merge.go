package shard

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/strandline-db/strandline/shard/model"
)

// merger puts together what several sources say of one series. Sources are
// added from the oldest in the log to the newest; at one timestamp the last wins.
type merger struct {
	cols        model.Columns // floats in the order of their sources
	hist        []blob
	starts      []sourceStart
	perm        []int
	overwritten int64 // values that finish dropped for a different one
	unchosen    int64 // samples that choices among senders dropped
}

// sourceStart is where the samples of one source begin.
type sourceStart struct{ floats, hist int }

func (m *merger) reset() {
	m.cols.Reset()
	clear(m.hist)
	m.hist = m.hist[:0]
	m.starts = m.starts[:0]
	m.overwritten, m.unchosen = 0, 0
}

// begin starts the next source. Inside one source a histogram is newer than a
// float of the same timestamp (store sees to that in the head; a block has only
// one of them).
func (m *merger) begin() {
	m.starts = append(m.starts, sourceStart{len(m.cols.T), len(m.hist)})
}

func (m *merger) float(t int64, v float64, st int64) {
	m.cols.T = append(m.cols.T, t)
	m.cols.V = append(m.cols.V, v)
	if st != 0 || len(m.cols.ST) > 0 {
		m.padST(len(m.cols.T) - 1)
		m.cols.ST = append(m.cols.ST, st)
	}
}

func (m *merger) padST(n int) {
	for len(m.cols.ST) < n {
		m.cols.ST = append(m.cols.ST, 0)
	}
}

// finish sorts and drops what was overwritten. Afterwards cols.T and hist are
// strictly increasing, and no timestamp is in both.
func (m *merger) finish() {
	if len(m.cols.ST) > 0 {
		m.padST(len(m.cols.T))
	}
	var newest map[int64]bool
	if len(m.hist) > 0 && len(m.cols.T) > 0 {
		newest = m.histNewest()
	}
	if !increasing(m.cols.T) {
		m.sortFloats()
	}
	var dropped int64
	m.hist, dropped = sortBlobs(m.hist)
	m.overwritten += dropped
	if newest != nil {
		m.dropOlderKind(newest)
	}
}

// histNewest says, for each timestamp of a histogram, whether the newest sample
// there is a histogram; otherwise it is a float.
func (m *merger) histNewest() map[int64]bool {
	newest := make(map[int64]bool, len(m.hist))
	for i, from := range m.starts {
		to := sourceStart{len(m.cols.T), len(m.hist)}
		if i+1 < len(m.starts) {
			to = m.starts[i+1]
		}
		for _, t := range m.cols.T[from.floats:to.floats] {
			if _, both := newest[t]; both {
				newest[t] = false
			}
		}
		for _, b := range m.hist[from.hist:to.hist] {
			newest[b.t] = true
		}
	}
	return newest
}

func increasing(ts []int64) bool {
	for i := 1; i < len(ts); i++ {
		if ts[i] <= ts[i-1] {
			return false
		}
	}
	return true
}

func (m *merger) sortFloats() {
	c := &m.cols
	m.perm = m.perm[:0]
	for i := range c.T {
		m.perm = append(m.perm, i)
	}
	slices.SortStableFunc(m.perm, func(a, b int) int { return cmp.Compare(c.T[a], c.T[b]) })
	var out model.Columns
	for k, i := range m.perm {
		if k+1 < len(m.perm) && c.T[m.perm[k+1]] == c.T[i] {
			if math.Float64bits(c.V[m.perm[k+1]]) != math.Float64bits(c.V[i]) {
				m.overwritten++
			}
			continue
		}
		out.T, out.V = append(out.T, c.T[i]), append(out.V, c.V[i])
		if len(c.ST) > 0 {
			out.ST = append(out.ST, c.ST[i])
		}
	}
	c.T, c.V, c.ST = out.T, out.V, out.ST
}

// sortBlobs orders blobs by time and keeps the last of each timestamp. dropped
// counts those that said something else.
func sortBlobs(bs []blob) (_ []blob, dropped int64) {
	sorted := true
	for i := 1; i < len(bs) && sorted; i++ {
		sorted = bs[i-1].t < bs[i].t
	}
	if sorted {
		return bs, 0
	}
	slices.SortStableFunc(bs, func(a, b blob) int { return cmp.Compare(a.t, b.t) })
	out := bs[:0]
	for i, b := range bs {
		if i+1 < len(bs) && bs[i+1].t == b.t {
			if !bytes.Equal(bs[i+1].data, b.data) {
				dropped++
			}
			continue
		}
		out = append(out, b)
	}
	return out, dropped
}

// dropOlderKind leaves, where a float and a histogram share a timestamp, the newer.
func (m *merger) dropOlderKind(histNewest map[int64]bool) {
	c := &m.cols
	k := 0
	for i, t := range c.T {
		if histNewest[t] {
			m.overwritten++
			continue
		}
		c.T[k], c.V[k] = t, c.V[i]
		if len(c.ST) > 0 {
			c.ST[k] = c.ST[i]
		}
		k++
	}
	c.T, c.V = c.T[:k], c.V[:k]
	if len(c.ST) > 0 {
		c.ST = c.ST[:k]
	}
	had := len(m.hist)
	m.hist = slices.DeleteFunc(m.hist, func(b blob) bool { return !histNewest[b.t] })
	m.overwritten += int64(had - len(m.hist))
}

// clip cuts the merged columns to [minT, maxT].
func (m *merger) clip(minT, maxT int64) {
	c := &m.cols
	lo, _ := slices.BinarySearch(c.T, minT)
	hi := len(c.T)
	if hi > 0 && c.T[hi-1] > maxT {
		var found bool
		if hi, found = slices.BinarySearch(c.T, maxT); found {
			hi++
		}
	}
	hi = max(hi, lo)
	c.T, c.V = c.T[lo:hi], c.V[lo:hi]
	if len(c.ST) > 0 {
		c.ST = c.ST[lo:hi]
	}
	m.hist = clipBlobs(m.hist, minT, maxT)
}

func clipBlobs(bs []blob, minT, maxT int64) []blob {
	lo, hi := 0, len(bs)
	for lo < hi && bs[lo].t < minT {
		lo++
	}
	for hi > lo && bs[hi-1].t > maxT {
		hi--
	}
	return bs[lo:hi]
}
