package dash

import (
	"math"

	"github.com/prometheus/prometheus/util/kahansum"
)

// reducer folds the values of several series at one time into one, as PromQL's
// aggregations of the same names do. (Its avg does not survive a sum beyond the
// largest float.)
type reducer struct {
	n           int
	sum, c      float64 // with Kahan's compensation
	least, most float64
	newest      int64 // of the times of the values, in milliseconds
}

// add takes one more value.
func (r *reducer) add(t int64, v float64) {
	if r.n++; r.n == 1 {
		r.sum, r.least, r.most, r.newest = v, v, v, t
		return
	}
	r.newest = max(r.newest, t)
	r.sum, r.c = kahansum.Inc(v, r.sum, r.c)
	// NaN gives way to anything.
	if r.least > v || math.IsNaN(r.least) {
		r.least = v
	}
	if r.most < v || math.IsNaN(r.most) {
		r.most = v
	}
}

// value returns the result of the reduction of that name, one of reductions.
func (r *reducer) value(name string) float64 {
	switch name {
	case "avg":
		return r.sum/float64(r.n) + r.c/float64(r.n)
	case "min":
		return r.least
	case "max":
		return r.most
	}
	return r.sum + r.c
}
