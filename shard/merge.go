package shard

import (
	"slices"

	"github.com/strandline-db/strandline/shard/model"
)

// merger puts together what several sources say of one series. Sources are
// added from the oldest in the log to the newest; at one timestamp the last wins.
type merger struct {
	cols model.Columns // floats in the order of their sources
	hist []blob
	perm []int
}

func (m *merger) reset() {
	m.cols.Reset()
	clear(m.hist)
	m.hist = m.hist[:0]
}

func (m *merger) float(t int64, v float64, st int64) {
	m.cols.T = append(m.cols.T, t)
	m.cols.V = append(m.cols.V, v)
	if st != 0 || len(m.cols.ST) > 0 {
		m.padST(len(m.cols.T) - 1)
		m.cols.ST = append(m.cols.ST, st)
	}
}

func (m *merger) floats(t []int64, v []float64, st []int64) {
	had := len(m.cols.T)
	m.cols.T = append(m.cols.T, t...)
	m.cols.V = append(m.cols.V, v...)
	switch {
	case len(st) > 0:
		m.padST(had)
		m.cols.ST = append(m.cols.ST, st...)
	case len(m.cols.ST) > 0:
		m.padST(len(m.cols.T))
	}
}

func (m *merger) padST(n int) {
	for len(m.cols.ST) < n {
		m.cols.ST = append(m.cols.ST, 0)
	}
}

// finish sorts and drops what was overwritten. Afterwards cols.T and hist are
// strictly increasing, and no timestamp is in both: a histogram hides a float,
// since a series that has turned native must not answer with the old kind.
func (m *merger) finish() {
	if len(m.cols.ST) > 0 {
		m.padST(len(m.cols.T))
	}
	if !increasing(m.cols.T) {
		m.sortFloats()
	}
	m.hist = sortBlobs(m.hist)
	if len(m.hist) > 0 && len(m.cols.T) > 0 {
		m.hideFloats()
	}
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
	slices.SortStableFunc(m.perm, func(a, b int) int {
		switch {
		case c.T[a] < c.T[b]:
			return -1
		case c.T[a] > c.T[b]:
			return 1
		}
		return 0
	})
	var out model.Columns
	for k, i := range m.perm {
		if k+1 < len(m.perm) && c.T[m.perm[k+1]] == c.T[i] {
			continue
		}
		out.T, out.V = append(out.T, c.T[i]), append(out.V, c.V[i])
		if len(c.ST) > 0 {
			out.ST = append(out.ST, c.ST[i])
		}
	}
	c.T, c.V, c.ST = out.T, out.V, out.ST
}

// sortBlobs orders blobs by time and keeps the last of each timestamp.
func sortBlobs(bs []blob) []blob {
	sorted := true
	for i := 1; i < len(bs) && sorted; i++ {
		sorted = bs[i-1].t < bs[i].t
	}
	if sorted {
		return bs
	}
	slices.SortStableFunc(bs, func(a, b blob) int {
		switch {
		case a.t < b.t:
			return -1
		case a.t > b.t:
			return 1
		}
		return 0
	})
	out := bs[:0]
	for i, b := range bs {
		if i+1 < len(bs) && bs[i+1].t == b.t {
			continue
		}
		out = append(out, b)
	}
	return out
}

func (m *merger) hideFloats() {
	c := &m.cols
	k, j := 0, 0
	for i, t := range c.T {
		for j < len(m.hist) && m.hist[j].t < t {
			j++
		}
		if j < len(m.hist) && m.hist[j].t == t {
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
