package query_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
)

// odd returns a value that arithmetic treats in a way of its own, now and then.
func odd(r *rand.Rand, wild bool) float64 {
	if wild {
		switch r.IntN(24) {
		case 0:
			return math.NaN()
		case 1:
			return math.Inf(1)
		case 2:
			return math.Inf(-1)
		case 3:
			return math.Copysign(0, -1)
		case 4:
			return 0
		case 5:
			return math.Float64frombits(value.StaleNaN)
		case 6:
			return 1e305 * float64(r.IntN(30)-15)
		case 7, 8:
			return 1e17 * float64(r.IntN(3)-1)
		}
	}
	return math.Round(r.NormFloat64()*1000) / 8
}

// fillRandom stores counters, gauges, wild values and native histograms, with gaps,
// resets, and a metric that changes from floats to histograms: those of one of a pair of
// senders, if that has a name.
func fillRandom(t testing.TB, s *querytest.Store, r *rand.Rand, sender string) {
	t.Helper()
	b := &model.Batch{}
	add := func(kind, i int, name string) {
		ls := labels.FromStrings("__name__", name, "job", fmt.Sprint("j", i%3), "pod", fmt.Sprint("p", i), "Zone", string("ab"[i%2]))
		if sender != "" {
			ls = labels.NewBuilder(ls).Set("replica", sender).Labels()
		}
		if kind == 5 {
			ls = labels.NewBuilder(ls).Set("__type__", "gauge").Labels()
		}
		if kind == 6 {
			ls = labels.NewBuilder(ls).Set("le", []string{"1", "5", "10", "+Inf"}[i%4]).Labels()
		}
		bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist)}
		total := 0.0
		for at := int64(r.IntN(15_000)); at < 20*60_000; at += 15_000 {
			if r.IntN(12) == 0 {
				at += int64(r.IntN(6)) * 60_000
			}
			if kind == 3 || kind == 4 && at > 600_000 {
				h := &histogram.Histogram{Schema: 1, Count: uint64(1 + at/1000), Sum: float64(at), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1 + at/1000}}
				b.Hist = append(b.Hist, model.HistogramSample{T: at, H: h})
				continue
			}
			v := odd(r, kind == 2)
			if kind == 0 || kind == 6 {
				if total += math.Abs(v); r.IntN(30) == 0 {
					total = 0
				}
				v = total
			}
			b.T, b.V = append(b.T, at), append(b.V, v)
		}
		bs.To, bs.HTo = len(b.T), len(b.Hist)
		b.Series = append(b.Series, bs)
	}
	for kind, name := range []string{"requests_total", "gauge", "wild", "hist", "mixed", "typed", "lat_bucket"} {
		for i := range 12 {
			add(kind, i, name)
		}
	}
	if _, err := s.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// expression draws a query.
func expression(r *rand.Rand) string {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	sel := pick("requests_total", "requests_total", "gauge", "gauge", "wild", "hist", "mixed", "typed", `gauge{pod=~"p1.*"}`, `{job="j1"}`,
		`{__name__=~"gauge|wild"}`, "nothing", `{__name__="wild",Zone!="a"}`)
	at := pick("", "", "", " offset 1m", " @ 600", " @ end()", " @ start() offset -2m", " offset -30s")
	var inner string
	switch r.IntN(7) {
	case 0:
		inner = sel + at
	case 5:
		inner = pick("max_over_time", "sum_over_time", "last_over_time", "deriv", "count_over_time") + "(" +
			pick(sel, "rate("+sel+"[2m])", "abs("+sel+at+")", "changes("+sel+"[1m] offset 1m)") + pick("[3m:1m]", "[150s:1m]") + at + ")"
	case 1, 2:
		inner = pick("rate", "increase", "delta", "irate", "avg_over_time", "max_over_time", "count_over_time", "last_over_time", "stddev_over_time",
			"changes", "resets", "deriv", "present_over_time", "sum_over_time") + "(" + sel + pick("[1m]", "[2m]", "[5m]") + at + ")"
	case 3:
		inner = pick("-", "abs(", "ceil(", "histogram_count(", "sgn(", "clamp_max(", "timestamp(", "round(", "(")
		close := map[string]string{"-": "", "clamp_max(": ", 7)", "round(": ", 0.5)"}
		end, ok := close[inner]
		if !ok {
			end = ")"
		}
		inner += sel + at + end
	case 4:
		inner = sel + at + pick(" * 2", " / 0", " > 3", " >bool 0", " % (3 + 2)", " ^ 2", " - time()", " == 0", " != NaN") + pick("", "", " + 1")
	default:
		inner = "quantile_over_time(" + pick("0.5", "1.5", "NaN") + ", " + sel + "[3m]" + at + ")"
	}
	by := pick("", "", " by (job)", " by (job, Zone)", " without (pod)", " by (pod)", " by (__name__)", " without (job)", " by (nothing)", " without ()", " by ()")
	agg := pick("sum", "sum", "avg", "min", "max", "count", "group") + by + " (\n" + inner + "\n)"
	switch r.IntN(11) {
	case 7:
		return "histogram_quantile(" + pick("0.5", "0.9", "2") + ", " + pick("sum", "avg", "max") + pick(" by (le)", " by (le, job)", " without (pod)") +
			" (rate(lat_bucket[" + pick("1m", "3m") + "]" + pick("", " offset 1m") + ")))"
	case 0:
		return agg + " + on (job) group_left " + pick("sum", "count") + " by (job) (gauge)"
	case 1:
		return "topk" + "(2, " + agg + ")"
	case 2:
		return pick("abs", "absent", "timestamp", "-", "sort_desc", "scalar") + "(" + agg + ")"
	case 3:
		return agg + pick(" * 2", " > 5", " or vector(1)", " / 10")
	case 4:
		return "quantile by (job) (0.5, " + agg + ")"
	case 5:
		return "max_over_time((" + agg + ")[5m:1m])"
	case 6:
		return "count(" + agg + ")"
	case 8:
		return agg + pick(" or ", " / ", " unless ") + agg
	}
	return agg
}

// sameValue compares bits, and of sums up to a part in 1e12.
func sameValue(a, b float64, exact bool) bool {
	if math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return !exact && math.Abs(a-b) <= 1e-12*max(math.Abs(a), math.Abs(b))
}

func sameMatrix(a, b promql.Matrix, exact bool) bool {
	return slices.EqualFunc(a, b, func(x, y promql.Series) bool {
		return labels.Equal(x.Metric, y.Metric) &&
			slices.EqualFunc(x.Floats, y.Floats, func(p, q promql.FPoint) bool { return p.T == q.T && sameValue(p.F, q.F, exact) }) &&
			slices.EqualFunc(x.Histograms, y.Histograms, func(p, q promql.HPoint) bool { return p.T == q.T && p.H.Equals(q.H) })
	})
}

// matrixOf shows any result as a matrix. The order of a vector is part of it.
func matrixOf(res *query.Result) promql.Matrix {
	switch v := res.Value.(type) {
	case promql.Matrix:
		return v
	case promql.Vector:
		var m promql.Matrix
		for _, s := range v {
			if s.H != nil {
				m = append(m, promql.Series{Metric: s.Metric, Histograms: []promql.HPoint{{T: s.T, H: s.H}}})
			} else {
				m = append(m, promql.Series{Metric: s.Metric, Floats: []promql.FPoint{{T: s.T, F: s.F}}})
			}
		}
		return m
	case promql.Scalar:
		return promql.Matrix{{Floats: []promql.FPoint{{T: v.T, F: v.V}}}}
	}
	return nil
}

// exact tells whether no value may differ in any bit.
func exact(expr string) bool { return !strings.Contains(expr, "sum") && !strings.Contains(expr, "avg") }

// unordered tells whether two results are equal but for the order that Prometheus' engine
// itself takes from a Go map: that of what a subquery or histogram_quantile gives, and of series that a range
// query has through a function, of which topk takes the first among equal ones.
func unordered(expr string, instant bool, a, b promql.Matrix) bool {
	mapped := strings.Contains(expr, ":1m]") || strings.Contains(expr, "histogram_quantile")
	if mapped && !strings.Contains(expr, "topk") {
		byLabels := func(x, y promql.Series) int { return labels.Compare(x.Metric, y.Metric) }
		slices.SortFunc(a, byLabels)
		slices.SortFunc(b, byLabels)
		return sameMatrix(a, b, exact(expr))
	}
	values := func(m promql.Matrix) map[int64][]float64 {
		out := map[int64][]float64{}
		for _, s := range m {
			for _, p := range s.Floats {
				out[p.T] = append(out[p.T], p.F)
			}
		}
		for _, v := range out {
			slices.Sort(v)
		}
		return out
	}
	return strings.Contains(expr, "topk") && (mapped || !instant) && maps.EqualFunc(values(a), values(b), func(x, y []float64) bool {
		return slices.EqualFunc(x, y, func(v, w float64) bool { return sameValue(v, w, exact(expr)) })
	})
}

// anyZero tells whether 0 and -0 may stand for each other: the first of them is the least
// and the greatest, and the order of series that a range query has through a function or
// an operator is that of a Go map in Prometheus' engine.
func anyZero(expr string, instant bool) bool {
	return (!instant || strings.Contains(expr, ":1m]")) && (strings.Contains(expr, "min") || strings.Contains(expr, "max"))
}

// unsign makes -0 be 0.
func unsign(m promql.Matrix) {
	for _, s := range m {
		for i := range s.Floats {
			s.Floats[i].F += 0
		}
	}
}

func notes(expr string, res *query.Result) string {
	w, i := query.Notes(expr, res.Warnings, 0)
	slices.Sort(w)
	slices.Sort(i)
	return fmt.Sprint(w, i)
}

// TestScatterDifferential: whatever is asked, the answer over several nodes is that over
// one: values, order, errors, notes and statistics.
func TestScatterDifferential(t *testing.T) {
	differential(t, 4, func(store *querytest.Store, r *rand.Rand) (whole, far *query.Engine, s *spread) {
		fillRandom(t, store, r, "")
		far, s = spreadEngine(t, store, 2+r.IntN(4), nil)
		return engine(t, store, nil), far, s
	})
}

// TestScatterPairDifferential is the same for a pair of senders whose series lie together.
func TestScatterPairDifferential(t *testing.T) {
	differential(t, 2, func(store *querytest.Store, r *rand.Rand) (whole, far *query.Engine, s *spread) {
		fillRandom(t, store, r, "a")
		fillRandom(t, store, r, "b")
		s = &spread{Reader: store, nodes: 2 + r.IntN(4), label: "replica"}
		far = engine(t, query.NewPairReader(s, "replica"), nil)
		s.work = far.Fragment
		return engine(t, query.NewPairReader(store, "replica"), nil), far, s
	})
}

// differential compares engines that open makes, over data that it fills in. A third of the
// queries at least must have asked other nodes.
func differential(t *testing.T, stores int, open func(*querytest.Store, *rand.Rand) (whole, far *query.Engine, s *spread)) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	parts, asked := 0, map[string]int{}
	for range stores {
		store := querytest.New()
		whole, far, s := open(store, r)
		far.SetBatchPoints(1 + r.IntN(200))
		parts += differ(t, whole, far, s, r, asked)
		if n := store.Open(); n != 0 {
			t.Fatalf("%d selections are open", n)
		}
	}
	t.Logf("%d of %d queries asked other nodes: %v", parts, stores*differing, slices.Sorted(maps.Keys(asked)))
	if parts < stores*differing/3 {
		t.Error("too few")
	}
}

const differing = 150 // queries a store

// differ compares the answers to so many queries, and returns how many asked other nodes.
func differ(t *testing.T, whole, far *query.Engine, s *spread, r *rand.Rand, asked map[string]int) (parts int) {
	t.Helper()
	for range differing {
		expr := expression(r)
		before := s.asked.Load()
		compareScattered(t, whole, far, r, expr, s.label != "")
		if t.Failed() {
			return parts
		}
		if s.asked.Load() > before {
			parts++
			asked[expr[:3]]++
		}
	}
	return parts
}

func compareScattered(t *testing.T, whole, far *query.Engine, r *rand.Rand, expr string, pairs bool) {
	t.Helper()
	at := time.UnixMilli(int64(r.IntN(22 * 60_000)))
	end, step := at.Add(time.Duration(r.IntN(300))*time.Second), time.Duration(1+r.IntN(60_000))*time.Millisecond
	instant := r.IntN(3) == 0
	run := func(e *query.Engine) (*query.Result, error) {
		if instant {
			return e.Instant(context.Background(), expr, at, query.QueryOptions{})
		}
		return e.Range(context.Background(), expr, at, end, step, query.QueryOptions{})
	}
	want, werr := run(whole)
	got, gerr := run(far)
	if fmt.Sprint(werr) != fmt.Sprint(gerr) {
		t.Errorf("%s at %v: error %v, want %v", expr, at, gerr, werr)
	}
	if werr != nil || gerr != nil {
		return
	}
	defer want.Close()
	defer got.Close()
	x, y := matrixOf(got), matrixOf(want)
	if anyZero(expr, instant) {
		unsign(x)
		unsign(y)
	}
	if !sameMatrix(x, y, exact(expr)) && !unordered(expr, instant, x, y) {
		t.Errorf("%s\nfrom %v to %v every %v, instant %v\ngot  %v\nwant %v", expr, at, end, step, instant, x, y)
	}
	if a, b := notes(expr, got), notes(expr, want); a != b {
		t.Errorf("%s: notes\n%s, want\n%s", expr, a, b)
	}
	if strings.Contains(expr, "timestamp") || strings.Contains(expr, "absent") {
		return // histograms then are read without buckets, and count for less
	}
	a, b := got.Stats.Samples, want.Stats.Samples
	if pairs {
		// Where none of a pair's series has a sample in range, those with some in the same
		// bucket are not counted; a node has fewer series than all.
		a.TotalSeries = b.TotalSeries
	}
	if a.TotalSamples != b.TotalSamples || a.SamplesRead != b.SamplesRead || a.TotalSeries != b.TotalSeries {
		t.Errorf("%s instant %v: %d samples, %d read, %d series, want %d, %d, %d", expr, instant,
			a.TotalSamples, a.SamplesRead, a.TotalSeries, b.TotalSamples, b.SamplesRead, b.TotalSeries)
	}
}
