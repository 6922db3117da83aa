package live

import (
	"math"

	"github.com/prometheus/prometheus/util/kahansum"
)

// rangeFunc is a function of a range vector's one series, as Prometheus defines it: of
// the floats in (end-window, end], at least one, without stale markers. Times are in
// milliseconds. false: no result.
type rangeFunc func(ts []int64, vs []float64, end, window int64) (float64, bool)

// rangeFuncs are those that are computed here. All drop the metric's name but
// last_over_time.
var rangeFuncs = map[string]rangeFunc{
	"rate":              rate,
	"increase":          increase,
	"delta":             delta,
	"irate":             irate,
	"idelta":            idelta,
	"changes":           changes,
	"resets":            resets,
	"count_over_time":   func(_ []int64, vs []float64, _, _ int64) (float64, bool) { return float64(len(vs)), true },
	"present_over_time": func([]int64, []float64, int64, int64) (float64, bool) { return 1, true },
	"last_over_time":    func(_ []int64, vs []float64, _, _ int64) (float64, bool) { return vs[len(vs)-1], true },
	"sum_over_time":     sumOverTime,
	"avg_over_time":     avgOverTime,
	"min_over_time":     minOverTime,
	"max_over_time":     maxOverTime,
}

func rate(ts []int64, vs []float64, end, window int64) (float64, bool) {
	return extrapolated(ts, vs, end, window, true, true)
}

func increase(ts []int64, vs []float64, end, window int64) (float64, bool) {
	return extrapolated(ts, vs, end, window, true, false)
}

func delta(ts []int64, vs []float64, end, window int64) (float64, bool) {
	return extrapolated(ts, vs, end, window, false, false)
}

// extrapolated is the difference between the last and the first value, resets of a
// counter added back, extended to the window's bounds where the samples come within 1.1
// of their mean distance of them, and by half of that distance where they don't.
func extrapolated(ts []int64, vs []float64, end, window int64, counter, perSecond bool) (float64, bool) {
	n := len(ts) - 1
	if n < 1 {
		return 0, false
	}
	diff := vs[n] - vs[0]
	if counter {
		for i, v := range vs[1:] {
			if v < vs[i] {
				diff += vs[i]
			}
		}
	}
	toStart, toEnd := float64(ts[0]-(end-window))/1000, float64(end-ts[n])/1000
	sampled := float64(ts[n]-ts[0]) / 1000
	distance := sampled / float64(n)
	if toStart >= distance*1.1 {
		toStart = distance / 2
	}
	if counter && diff > 0 && vs[0] >= 0 {
		// A counter is never negative: go back no further than to where it was zero.
		if toZero := sampled * (vs[0] / diff); toZero < toStart {
			toStart = toZero
		}
	}
	if toEnd >= distance*1.1 {
		toEnd = distance / 2
	}
	factor := (sampled + toStart + toEnd) / sampled
	if perSecond {
		factor /= float64(window) / 1000
	}
	return diff * factor, true
}

func irate(ts []int64, vs []float64, _, _ int64) (float64, bool) {
	n := len(ts)
	if n < 2 {
		return 0, false
	}
	v := vs[n-1]
	if !(v < vs[n-2]) {
		v -= vs[n-2]
	}
	return v / (float64(ts[n-1]-ts[n-2]) / 1000), true
}

func idelta(ts []int64, vs []float64, _, _ int64) (float64, bool) {
	n := len(ts)
	if n < 2 {
		return 0, false
	}
	return vs[n-1] - vs[n-2], true
}

func changes(_ []int64, vs []float64, _, _ int64) (float64, bool) {
	n := 0
	for i, v := range vs[1:] {
		if prev := vs[i]; v != prev && !(math.IsNaN(v) && math.IsNaN(prev)) {
			n++
		}
	}
	return float64(n), true
}

func resets(_ []int64, vs []float64, _, _ int64) (float64, bool) {
	n := 0
	for i, v := range vs[1:] {
		if v < vs[i] {
			n++
		}
	}
	return float64(n), true
}

func sumOverTime(_ []int64, vs []float64, _, _ int64) (float64, bool) {
	var sum, c float64
	for _, v := range vs {
		sum, c = kahansum.Inc(v, sum, c)
	}
	if math.IsInf(sum, 0) {
		return sum, true
	}
	return sum + c, true
}

func avgOverTime(_ []int64, vs []float64, _, _ int64) (float64, bool) {
	var m mean
	for _, v := range vs {
		m.add(v)
	}
	return m.value(), true
}

func minOverTime(_ []int64, vs []float64, _, _ int64) (float64, bool) {
	least := vs[0]
	for _, v := range vs {
		if v < least || math.IsNaN(least) {
			least = v
		}
	}
	return least, true
}

func maxOverTime(_ []int64, vs []float64, _, _ int64) (float64, bool) {
	most := vs[0]
	for _, v := range vs {
		if v > most || math.IsNaN(most) {
			most = v
		}
	}
	return most, true
}

// mean averages by a compensated sum, and from the moment that the sum would overflow
// by moving the mean.
type mean struct {
	n, sum, c float64
	mean      float64
	moving    bool
}

func (m *mean) add(v float64) {
	m.n++
	if m.n == 1 {
		m.sum = v
		return
	}
	if !m.moving {
		sum, c := kahansum.Inc(v, m.sum, m.c)
		if !math.IsInf(sum, 0) {
			m.sum, m.c = sum, c
			return
		}
		m.moving = true
		m.mean = m.sum / (m.n - 1)
		m.c /= m.n - 1
	}
	q := (m.n - 1) / m.n
	m.mean, m.c = kahansum.Inc(v/m.n, q*m.mean, q*m.c)
}

func (m *mean) value() float64 {
	if m.moving {
		return m.mean + m.c
	}
	return m.sum/m.n + m.c/m.n
}
