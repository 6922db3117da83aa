package query_test

import (
	"context"
	"fmt"
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

// grammar draws expressions of any shape that the parser takes, whatever they mean.
type grammar struct {
	r    *rand.Rand
	base int64 // milliseconds that the data is about
}

func (g grammar) pick(of ...string) string { return of[g.r.IntN(len(of))] }

func (g grammar) modifiers() string {
	if g.base != 0 && g.r.IntN(6) == 0 {
		return fmt.Sprintf(" @ %d", g.base/1000+int64(g.r.IntN(1200)))
	}
	return g.pick("", "", "", "", " offset 1m", " @ 600", " @ end()", " @ start()", " @ start() offset -2m", " offset -30s", " @ 300.5 offset 1s", " offset 1ms", " @ -5")
}

func (g grammar) selector() string {
	return g.pick("requests_total", "requests_total", "gauge", "gauge", "wild", "hist", "custom", "mixed", "typed", "lat_bucket", `gauge{pod=~"p1.*"}`, `{job="j1"}`,
		`{__name__=~"gauge|wild"}`, "nothing", `{__name__="wild",Zone!="a"}`, `{__name__!="hist",__name__!~"c.*|m.*|hist",job=~"j(0|2)"}`, `gauge{Zone=""}`, `gauge{Zone=~"|a"}`,
		`gauge{pod!~"(?i)P1"}`, `gauge{text=~"(?i)été\n.*"}`, `gauge{text="Été\nb"}`, `gauge{text=~".+"}`, `gauge{text!~".+"}`, `gauge{job=~"^j1$"}`, `requests_total{pod=~"p1|p2|p3|p10"}`,
		`requests_total{pod=~"p[1-3]",job!=""}`, `{job=~".*",__name__="gauge"}`, `{"Gauge.dotted"}`, `gauge{pod=~"p1|"}`)
}

func (g grammar) matrix(depth int) string {
	if depth > 0 && g.r.IntN(4) == 0 {
		return "(" + g.vector(depth-1) + ")" + g.pick("[3m:1m]", "[150s:1m]", "[1m:7s]", "[2m:]", "[61s:60s]") + g.modifiers()
	}
	return g.selector() + g.pick("[1m]", "[2m]", "[5m]", "[15s]", "[1ms]", "[1h]") + g.modifiers()
}

func (g grammar) scalar(depth int) string {
	if depth > 0 && g.r.IntN(3) == 0 {
		return "scalar(" + g.vector(depth-1) + ")"
	}
	return g.pick("2", "0", "0.5", "-1", "NaN", "Inf", "time()", "(3 + 2)", "1e300", "pi()", "-0")
}

func (g grammar) by() string {
	return g.pick("", "", " by (job)", " by (job, Zone)", " without (pod)", " by (pod)", " by (__name__)", " without (job)", " by (nothing)", " without ()", " by ()", " by (le)",
		" without (__name__)", " by (text)", " by (__name__, job)", " without (text, pod, le)")
}

func (g grammar) aggregation(depth int) string {
	op := g.pick("sum", "sum", "avg", "min", "max", "count", "group")
	if g.r.IntN(6) == 0 {
		op = g.pick("stddev", "stdvar")
	}
	return op + g.by() + " (" + g.vector(depth-1) + ")"
}

func (g grammar) vector(depth int) string {
	if depth <= 0 {
		return g.selector() + g.modifiers()
	}
	switch g.r.IntN(10) {
	case 0:
		return g.selector() + g.modifiers()
	case 1, 2:
		return g.pick("rate", "increase", "delta", "irate", "idelta", "avg_over_time", "max_over_time", "min_over_time", "count_over_time", "last_over_time", "first_over_time",
			"stddev_over_time", "stdvar_over_time", "changes", "resets", "deriv", "present_over_time", "sum_over_time", "mad_over_time", "absent_over_time",
			"ts_of_last_over_time", "ts_of_first_over_time", "ts_of_min_over_time", "ts_of_max_over_time") + "(" + g.matrix(depth) + ")"
	case 3:
		f := g.pick("-", "abs(", "ceil(", "histogram_count(", "histogram_sum(", "histogram_avg(", "histogram_stddev(", "sgn(", "timestamp(", "(", "hour(",
			"day_of_week(", "exp(", "sqrt(", "ln(", "absent(", "sort(")
		if f == "-" {
			return f + g.vector(depth-1)
		}
		return f + g.vector(depth-1) + ")"
	case 4, 5, 6:
		return g.aggregation(depth)
	case 7:
		return "(" + g.vector(depth-1) + ")" + g.pick(" * ", " / ", " > ", " >bool ", " % ", " ^ ", " - ", " == ", " != ", " atan2 ") + g.scalar(depth-1)
	case 8:
		return "(" + g.vector(depth-1) + ") " + g.pick("+ on (job, pod) ", "and ", "unless on (job) ", "or ", "- on (job) group_left (Zone) ", "* ignoring (Zone) ", "/ on () group_right () ", "> on (pod) ", "and on () ") + "(" + g.vector(depth-1) + ")"
	}
	switch g.r.IntN(9) {
	case 0:
		return `label_replace(` + g.vector(depth-1) + g.pick(`, "__name__", "x_$1", "job", "(.*)")`, `, "job", "same", "", "")`, `, "copy", "$1", "text", "(?s)(.*)")`, `, "__name__", "", "", "")`)
	case 1:
		return `label_join(` + g.vector(depth-1) + `, "both", "-", "job", "Zone")`
	case 2:
		return "clamp(" + g.vector(depth-1) + ", " + g.scalar(depth-1) + ", " + g.scalar(depth-1) + ")"
	case 3:
		return "round(" + g.vector(depth-1) + ", 0.5)"
	case 4:
		return "histogram_quantile(" + g.scalar(0) + ", " + g.vector(depth-1) + ")"
	case 5:
		return g.pick("predict_linear(", "predict_linear(") + g.matrix(depth-1) + ", " + g.scalar(0) + ")"
	case 6:
		return "quantile_over_time(" + g.scalar(0) + ", " + g.matrix(depth-1) + ")"
	case 7:
		return "histogram_fraction(0, 7, " + g.vector(depth-1) + ")"
	}
	return "clamp_min(" + g.vector(depth-1) + ", " + g.scalar(depth-1) + ")"
}

// startAt moves a start time, unless there is none.
func startAt(st, base int64) int64 {
	if st == 0 {
		return 0
	}
	return st + base
}

// wideNames are the metrics, by kind.
var wideNames = []string{"requests_total", "gauge", "wild", "hist", "custom", "mixed", "typed", "lat_bucket", "Gauge.dotted"}

// wideKey returns the key of the ith series of a metric.
func wideKey(name string, i int) []byte {
	lb := labels.NewBuilder(labels.FromStrings("__name__", name, "job", fmt.Sprint("j", i%3), "pod", fmt.Sprint("p", i)))
	if i%4 != 3 {
		lb.Set("Zone", string("ab"[i%2]))
	}
	if i%5 == 2 {
		lb.Set("text", []string{"\u00c9t\u00e9\nb", "\u2028", "\x00", "x\"y\\"}[i%4])
	}
	switch name {
	case "typed":
		lb.Set("__type__", "gauge")
	case "lat_bucket":
		lb.Set("le", []string{"1", "5", "10", "+Inf"}[i%4])
	}
	return model.AppendKey(nil, lb.Labels())
}

// fillWide stores series of many kinds round the time 0.
func fillWide(t testing.TB, s *querytest.Store, r *rand.Rand) {
	t.Helper()
	b := &model.Batch{}
	for kind, name := range wideNames {
		for i := range 6 + r.IntN(8) {
			addWide(b, r, kind, 0, wideKey(name, i))
		}
	}
	if _, err := s.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// addWide adds some 20 minutes of a series round a time.
func addWide(b *model.Batch, r *rand.Rand, kind int, base int64, key []byte) {
	bs := model.BatchSeries{Key: key, From: len(b.T), HFrom: len(b.Hist)}
	total := 0.0
	for at := int64(r.IntN(15_000)) - 5*60_000; at < 20*60_000; at += 15_000 {
		if r.IntN(12) == 0 {
			at += int64(r.IntN(6)) * 60_000
		}
		st := int64(0)
		if r.IntN(6) == 0 {
			st = at - 10_000
		}
		if kind == 3 || kind == 4 || kind == 5 && r.IntN(2) == 0 {
			h := &histogram.Histogram{Schema: 1, Count: uint64(600 + at/1000), Sum: float64(at), PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{600 + at/1000}}
			if kind == 4 {
				h = &histogram.Histogram{Schema: histogram.CustomBucketsSchema, Count: uint64(600 + at/1000), Sum: float64(at), CustomValues: []float64{1, 5}, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{600 + at/1000}}
			}
			switch r.IntN(20) {
			case 0:
				h.CounterResetHint = histogram.GaugeType
			case 1:
				h = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
			case 2:
				h.Schema, h.CustomValues = 0, nil
			}
			x := model.HistogramSample{T: at, ST: startAt(st, base), H: h}
			if r.IntN(4) == 0 {
				x.H, x.FH = nil, h.ToFloat(nil)
			}
			x.T += base
			b.Hist = append(b.Hist, x)
			continue
		}
		v := odd(r, kind == 2)
		if kind == 0 || kind == 7 {
			if total += math.Abs(v); r.IntN(30) == 0 {
				total = 0
			}
			v = total
		}
		if r.IntN(40) == 0 {
			v = math.Float64frombits(value.StaleNaN)
		}
		b.T, b.V, b.ST = append(b.T, base+at), append(b.V, v), append(b.ST, startAt(st, base))
	}
	bs.To, bs.HTo = len(b.T), len(b.Hist)
	b.Series = append(b.Series, bs)
}

// span draws the times of a query, step 0 for an instant: also in the middle of a
// millisecond, before 1970, and where nanoseconds overflow.
func (g grammar) span() (start, end time.Time, step time.Duration) {
	r := g.r
	start = time.UnixMilli(g.base + int64(r.IntN(27*60_000)) - 6*60_000)
	if r.IntN(4) == 0 {
		start = start.Add(time.Duration(r.IntN(1_000_000)))
	}
	end = start.Add(time.Duration(r.IntN(300)) * time.Second)
	step = time.Duration(1+r.IntN(60_000)) * time.Millisecond
	switch r.IntN(9) {
	case 0:
		end = start
	case 1:
		step = 20 * time.Minute
	case 2:
		step += time.Duration(r.IntN(1_000_000))
	case 3, 4, 5:
		step = 0
	}
	if r.IntN(20) == 0 {
		for _, t := range []*time.Time{&start, &end} {
			*t = t.Add(math.MaxInt64).Add(math.MaxInt64).Add(2)
		}
	}
	return start, end, step
}

// asking is one query, and the engines that it is put to.
type asking struct {
	whole, far *query.Engine
	expr       string
	start, end time.Time
	step       time.Duration // 0: an instant
	o          query.QueryOptions
}

func (a *asking) String() string {
	return fmt.Sprintf("%s\nfrom %v to %v every %v, %+v, engine %+v", a.expr, a.start, a.end, a.step, a.o, a.whole.Options())
}

func (a *asking) run(e *query.Engine) (*query.Result, error) {
	if a.step == 0 {
		return e.Instant(context.Background(), a.expr, a.start, a.o)
	}
	return e.Range(context.Background(), a.expr, a.start, a.end, a.step, a.o)
}

// compare fails if the answers differ. Much of what the grammar draws depends on the order of
// a Go map in Prometheus' engine: there one of many answers must be the same.
func (a *asking) compare(t *testing.T) {
	t.Helper()
	got, gerr := a.run(a.far)
	if gerr == nil {
		defer got.Close()
	}
	const again = 60
	for i := range again {
		want, werr := a.run(a.whole)
		why := a.differ(got, want, gerr, werr)
		if werr == nil {
			want.Close()
		}
		if why == "" {
			return
		}
		if i == again-1 {
			t.Errorf("%v\n%s", a, why)
		}
	}
}

func (a *asking) differ(got, want *query.Result, gerr, werr error) string {
	if x, y := failureOf(gerr), failureOf(werr); x != y {
		return fmt.Sprintf("error %s, want %s", x, y)
	}
	if gerr != nil {
		return ""
	}
	x, y := matrixOf(got), matrixOf(want)
	unsign(x)
	unsign(y)
	byLabels := func(p, q promql.Series) int { return labels.Compare(p.Metric, q.Metric) }
	slices.SortFunc(x, byLabels)
	slices.SortFunc(y, byLabels)
	if !sameMatrix(x, y, false) {
		return fmt.Sprintf("got  %v\nwant %v", x, y)
	}
	if p, q := notes(a.expr, got), notes(a.expr, want); p != q {
		return fmt.Sprintf("notes\n%s, want\n%s", p, q)
	}
	return ""
}

// failureOf leaves out of an error what comes of the order of a Go map in Prometheus' engine.
func failureOf(err error) string {
	text := fmt.Sprint(err)
	if i := strings.Index(text, "found duplicate series for the match group"); i >= 0 {
		return text[:i] + "found duplicate series"
	}
	return text
}

// TestScatterWide is TestScatterDifferential for expressions, times and data of all kinds.
func TestScatterWide(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	g := grammar{r: r}
	const stores, queries = 6, 150
	parts := 0
	for range stores {
		store := querytest.New()
		fillWide(t, store, r)
		o := query.Options{ExperimentalFunctions: true, DelayedNameRemoval: r.IntN(2) == 0, StartTimestamps: r.IntN(2) == 0}
		wo, fo := o, o
		a := &asking{whole: engine(t, store, &wo)}
		var s *spread
		a.far, s = spreadEngine(t, store, 2+r.IntN(4), &fo)
		a.far.SetBatchPoints(1 + r.IntN(200))
		for range queries {
			a.expr = g.vector(1 + r.IntN(3))
			a.start, a.end, a.step = g.span()
			a.o = query.QueryOptions{Lookback: time.Duration(max(0, r.IntN(1600)-1200)) * time.Second}
			before := s.asked.Load()
			if a.compare(t); t.Failed() {
				return
			}
			if s.asked.Load() > before {
				parts++
			}
		}
		if n := store.Open(); n != 0 {
			t.Fatalf("%d selections are open", n)
		}
	}
	if parts < stores*queries/8 {
		t.Errorf("only %d queries were done in parts", parts)
	}
}

// TestScatterTimes: Prometheus' engine counts nanoseconds, in which a time far away is one
// near by, and takes one before 1970 for the millisecond behind it.
func TestScatterTimes(t *testing.T) {
	store := querytest.New()
	fillWide(t, store, rand.New(rand.NewPCG(1, 2)))
	a := &asking{whole: engine(t, store, nil)}
	a.far, _ = spreadEngine(t, store, 3, nil)
	wraps := func(t time.Time) time.Time { return t.Add(math.MaxInt64).Add(math.MaxInt64).Add(2) }
	for _, start := range []time.Time{time.Unix(60, 0), time.Unix(60, 1999999), time.Unix(-60, 500), wraps(time.Unix(60, 0)), wraps(time.Unix(-60, 500))} {
		for _, step := range []time.Duration{0, time.Millisecond, 15 * time.Second} {
			for _, a.expr = range []string{"sum(count_over_time(gauge[30s]))", "sum(gauge @ 600 + time())"} {
				a.start, a.end, a.step = start, start.Add(50*step), step
				a.compare(t)
			}
		}
	}
}
