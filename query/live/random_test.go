package live_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
)

// grammar makes expressions of everything that PromQL has, over what a world stores.
type grammar struct{ rng *rand.Rand }

func (g *grammar) pick(xs ...string) string { return xs[g.rng.IntN(len(xs))] }

// metrics are those of a world: counters, gauges, native histograms, classic ones, and
// series that are now floats, now histograms.
var metrics = []string{"c", "g", "h", "b_bucket", "x"}

func (g *grammar) duration() string {
	return g.pick("700ms", "1s", "2500ms", "5s", "12s")
}

func (g *grammar) selector() string {
	return g.pick(metrics...) + g.pick("", "", "", `{s="1"}`, `{s=~"[0-2]"}`, `{a!="x"}`, `{pod=~".*3"}`, `{s="9"}`)
}

// modified is a selector or what is in parentheses, at another time perhaps.
func (g *grammar) modified(of string) string {
	switch g.rng.IntN(14) {
	case 0:
		return of + " offset " + g.duration()
	case 1:
		return of + " offset -" + g.duration()
	case 2:
		return fmt.Sprintf("%s @ %d", of, start.Add(-past).Unix())
	case 3:
		return of + g.pick(" @ end()", " @ start()")
	case 4:
		return of + " @ end() offset " + g.duration()
	}
	return of
}

func (g *grammar) matrix(depth int) string {
	if depth > 0 && g.rng.IntN(4) == 0 {
		return g.modified(fmt.Sprintf("(%s)[%s:%s]", g.vector(depth-1), g.duration(), g.pick("300ms", "1s", "2s", "")))
	}
	return g.modified(fmt.Sprintf("%s[%s]", g.selector(), g.duration()))
}

func (g *grammar) scalar(depth int) string {
	switch g.rng.IntN(5) {
	case 0:
		return fmt.Sprintf("scalar(%s)", g.vector(depth-1))
	case 1:
		return "time()"
	}
	return g.pick("2", "0", "-1.5", "0.5", "100", "NaN", "Inf", "pi()")
}

func (g *grammar) by() string {
	return g.pick("", " by (a)", " by (s)", " by (a, le)", " without (s)", " without (pod, le)", " by (__name__)")
}

// vector makes an expression that gives a vector, of calls and operators within each other as
// often as depth says.
func (g *grammar) vector(depth int) string {
	if depth <= 0 {
		return g.modified(g.selector())
	}
	v := func() string { return g.vector(depth - 1) }
	switch g.rng.IntN(16) {
	case 0, 1, 2, 3:
		return fmt.Sprintf("%s(%s)", g.pick("rate", "increase", "delta", "irate", "idelta", "changes", "resets", "deriv", "count_over_time",
			"present_over_time", "absent_over_time", "last_over_time", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time", "stddev_over_time",
			"stdvar_over_time"), g.matrix(depth))
	case 4:
		return g.pick("quantile_over_time(0.3, ", "quantile_over_time(scalar(g), ") + g.matrix(depth) + ")"
	case 5, 6, 7:
		return fmt.Sprintf("%s%s (%s)", g.pick("sum", "count", "avg", "min", "max", "group", "stddev", "stdvar"), g.by(), v())
	case 8:
		return fmt.Sprintf("%s%s (%s, %s)", g.pick("topk", "bottomk", "quantile"), g.by(), g.pick("1", "2", "0.5", g.scalar(depth)), v())
	case 9:
		return fmt.Sprintf("histogram_quantile(%s, %s)", g.pick("0.5", "0.9", g.scalar(depth)), g.pick(g.modified("h"), g.modified("b_bucket"), "rate("+g.modified("h[5s]")+")",
			"sum by (a, le) (rate("+g.modified("b_bucket[5s]")+"))", "sum by (a) (increase("+g.modified("h[5s]")+"))", v()))
	case 10:
		return fmt.Sprintf("%s(%s)", g.pick("histogram_count", "histogram_sum", "histogram_avg", "histogram_stddev", "abs", "ceil", "sgn", "absent", "timestamp", "sort", "-", "exp", "sqrt"), v())
	case 11:
		return g.wrap(v())
	case 12:
		return fmt.Sprintf("(%s) %s (%s)", v(), g.pick("+", "-", "*", "/", "%", "^", ">", "== bool", "<= bool", "!=", "< bool", "atan2"), g.scalar(depth))
	case 13:
		return fmt.Sprintf("(%s) %s (%s)", v(), g.pick("and", "or", "unless", "and on (s)", "unless on (a)", "or on (s)", "and ignoring (pod)"), v())
	case 14:
		return fmt.Sprintf("(%s) %s (%s)", v(), g.pick("+", "-", "*", "/", "> bool", "==", "+ on (s, pod)", "- on (s) group_left ()", "* ignoring (pod, le) group_right (a)", ">= on (a, s, pod, le)"), v())
	}
	return g.modified(g.selector())
}

func (g *grammar) wrap(v string) string {
	return fmt.Sprintf(g.pick(`label_replace(%s, "z", "$1", "s", "(.*)")`, `label_replace(%s, "s", "", "s", ".*")`, `label_join(%s, "z", "-", "a", "s")`, `clamp(%s, -3, 3)`, `round(%s, 0.5)`,
		`count_values("v", %s)`, `histogram_fraction(0, 2, %s)`, `clamp_max(%s, scalar(c))`), v)
}

// past is how long before the start there is data that nothing changes.
const past = 100 * time.Second

// world makes samples of all kinds: on time, late, early, twice, stale, of series that come and go.
type world struct {
	rng   *rand.Rand
	late  int64 // ms
	val   map[string]float64
	count map[string][]int64
	last  *model.Batch
}

func (w *world) batch(now int64) *model.Batch {
	if w.last != nil && w.rng.IntN(8) == 0 {
		return w.last // a retry
	}
	b := &model.Batch{}
	for i := range 4 {
		pod := fmt.Sprint((now/1000 + int64(i)*3) / 11 % 10)
		for _, name := range metrics {
			if w.rng.IntN(3) == 0 {
				continue
			}
			ls := []string{"__name__", name, "a", string(rune('x' + i%2)), "s", fmt.Sprint(i), "pod", pod}
			if name != "b_bucket" {
				w.series(b, now, name, labels.FromStrings(ls...))
				continue
			}
			for _, le := range []string{"1", "2.5", "+Inf"} {
				w.series(b, now, name, labels.FromStrings(append(ls, "le", le)...))
			}
		}
	}
	w.last = b
	return b
}

func (w *world) series(b *model.Batch, now int64, name string, ls labels.Labels) {
	bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist)}
	for range 1 + w.rng.IntN(2) {
		t := now - w.rng.Int64N(900)
		switch w.rng.IntN(20) {
		case 0:
			t = now - w.rng.Int64N(w.late)
		case 1:
			t = now + w.rng.Int64N(1500)
		case 2:
			t = (now - w.rng.Int64N(3000)) / 1000 * 1000 // one that is there, perhaps
		}
		if hist := name == "h" || name == "x" && w.rng.IntN(4) == 0; hist != (w.rng.IntN(60) == 0) {
			b.Hist = append(b.Hist, model.HistogramSample{T: t, H: w.histogram(ls.String())})
			continue
		}
		b.T, b.V = append(b.T, t), append(b.V, w.float(ls.String(), name))
	}
	bs.To, bs.HTo = len(b.T), len(b.Hist)
	b.Series = append(b.Series, bs)
}

func (w *world) float(key, name string) float64 {
	switch k := w.rng.IntN(40); {
	case k == 0:
		return math.Float64frombits(0x7ff0000000000002)
	case k == 1 && w.rng.IntN(3) == 0:
		return []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.MaxFloat64}[w.rng.IntN(5)]
	case name == "g":
		return math.Round(w.rng.NormFloat64()*100) / 10
	case k == 2:
		w.val[key] = 0
	}
	w.val[key] += float64(w.rng.IntN(100)) / 10
	return w.val[key]
}

func (w *world) histogram(key string) *histogram.Histogram {
	n := w.count[key]
	if n == nil || w.rng.IntN(30) == 0 {
		n = make([]int64, 4)
		w.count[key] = n
	}
	h := &histogram.Histogram{Schema: 1, ZeroThreshold: 0.001, PositiveSpans: []histogram.Span{{Offset: -1, Length: uint32(len(n))}}}
	if w.rng.IntN(40) == 0 {
		h.Sum = math.Float64frombits(0x7ff0000000000002)
		return &histogram.Histogram{Sum: h.Sum}
	}
	var was int64
	for i := range n {
		n[i] += w.rng.Int64N(4)
		h.PositiveBuckets = append(h.PositiveBuckets, n[i]-was)
		was = n[i]
		h.Count += uint64(n[i])
		h.Sum += float64(n[i]*int64(i+1)) / 2
	}
	return h
}

// answer is what an instant query says.
type answer struct {
	err  error
	rows map[string]live.Value
}

func (r *rig) ask(text string, t int64) answer {
	res, err := r.q.Instant(context.Background(), text, time.UnixMilli(t), query.QueryOptions{})
	if err != nil {
		return answer{err: err}
	}
	defer res.Close()
	rows := map[string]live.Value{}
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			x := live.Value{V: s.F}
			if s.H != nil {
				x = live.Value{H: s.H.Copy()}
			}
			rows[s.Metric.String()] = x
		}
	case promql.Scalar:
		rows["{}"] = live.Value{V: v.V}
	}
	return answer{rows: rows}
}

// differs says how the step at t differs from an answer; empty if it does not.
func (c *client) differs(t int64, a answer) string {
	step, head := c.steps[t], fmt.Sprintf("%s at %d (%s, step %s)", c.Info().Query, t, c.Info().Mode, c.Info().Step)
	switch {
	case a.err != nil && step != nil:
		return fmt.Sprintf("%s: got %v, want %v", head, c.rows[t], a.err)
	case a.err != nil:
		return ""
	case step == nil && slices.ContainsFunc(c.drops, func(d live.Dropped) bool { return d.From <= t && t <= d.To }):
		return ""
	case step == nil:
		return fmt.Sprintf("%s: no step; want %v", head, a.rows)
	case len(c.rows[t]) != len(step.Values):
		return fmt.Sprintf("%s: a series is there twice: %v", head, step.Values)
	}
	for name, v := range c.rows[t] {
		w, ok := a.rows[name]
		if !ok || (v.H == nil) != (w.H == nil) || v.H == nil && !alike(v.V, w.V, c.Info().Mode == live.ModeIncremental) || v.H != nil && !v.H.Equals(w.H) {
			return fmt.Sprintf("%s: rev %d %s is %v %v, want %v %v (%v)", head, step.Rev, name, v.V, v.H, w.V, w.H, ok)
		}
	}
	for name, w := range a.rows {
		if _, ok := c.rows[t][name]; !ok {
			return fmt.Sprintf("%s: lacks %s, %v %v", head, name, w.V, w.H)
		}
	}
	return ""
}

// settleOn reads until every closed step within the horizon is what an instant query says.
func (c *client) settleOn(first int64) {
	t := c.r.t
	t.Helper()
	now, step := c.r.clock.Now().UnixMilli(), c.Info().Step.Milliseconds()
	newest := floorTo(now-max(c.r.opts.Delay.Milliseconds(), 0), step)
	want := map[int64]answer{}
	for at := newest; at >= max(first, now-c.r.opts.Horizon.Milliseconds()+1); at -= step {
		want[at] = c.r.ask(c.Info().Query, at)
	}
	deadline := time.After(30 * time.Second)
	for {
		evs := c.Poll(nil)
		for _, ev := range evs {
			c.take(ev)
			if ev.Kind == live.DroppedKind {
				c.lastT = max(c.lastT, ev.Dropped.To)
			}
		}
		if len(evs) > 0 {
			continue
		}
		why := ""
		for at, a := range want {
			if why = c.differs(at, a); why != "" {
				break
			}
		}
		if why == "" && (newest < first || c.lastT >= newest) {
			return
		}
		select {
		case <-c.r.wake:
		case <-deadline:
			t.Fatalf("at %d the newest step is of %d, not of %d; %s", now, c.lastT, newest, why)
		}
	}
}

// alike tells whether two values are one, or as good as: the engine folds some things in any order.
func alike(a, b float64, exact bool) bool {
	return same(a, b, exact) || math.IsNaN(a) && math.IsNaN(b) || !exact && math.Abs(a-b) <= 1e-9*max(math.Abs(a), math.Abs(b), 1)
}

func floorTo(t, step int64) int64 { return t / step * step }

// crowd is clients of random expressions, two of each, that come and go.
type crowd struct {
	*rig
	rng     *rand.Rand
	clients []*client
	first   map[*client]int64 // step that it can have
	away    map[*client]bool
}

func (r *rig) crowd(rng *rand.Rand, n int) *crowd {
	r.t.Helper()
	g := &grammar{rng}
	k := &crowd{rig: r, rng: rng, first: map[*client]int64{}, away: map[*client]bool{}}
	for range n {
		req := live.Request{Query: g.vector(rng.IntN(4)), Step: []time.Duration{100, 250, 700, 1000, 1500, 5000, 15_000}[rng.IntN(7)] * time.Millisecond}
		for range 2 {
			c := r.subscribe(req)
			c.strict = false
			k.clients = append(k.clients, c)
			step := req.Step.Milliseconds()
			k.first[c] = floorTo(start.UnixMilli()-max(r.opts.Delay.Milliseconds(), 0), step) + step
		}
	}
	return k
}

// back lets a client resume.
func (k *crowd) back(c *client) {
	k.t.Helper()
	var seen int64
	for at, s := range c.steps {
		if s.Rev > 0 {
			seen = max(seen, at+int64(s.Rev))
		}
	}
	fresh := k.subscribe(live.Request{Query: c.Info().Query, Step: c.Info().Step, After: c.Since(), Seen: seen})
	c.Subscription, c.names, c.stale = fresh.Subscription, fresh.names, fresh.stale
}

// stir lets something happen to clients or data, or nothing.
func (k *crowd) stir() {
	k.t.Helper()
	switch k.rng.IntN(12) {
	case 0:
		k.close()
		k.clock.Advance(time.Duration(k.rng.IntN(4000)) * time.Millisecond)
		k.open()
		for _, c := range k.clients {
			if !k.away[c] {
				k.back(c)
			}
		}
	case 1, 2, 3:
		c := k.clients[k.rng.IntN(len(k.clients))]
		c.Close()
		k.away[c] = true
	case 4:
		for _, c := range k.clients {
			if k.away[c] {
				k.back(c)
			}
		}
		clear(k.away)
	case 5:
		if err := k.db.Flush(context.Background()); err != nil {
			k.t.Fatal(err)
		}
	}
}

// TestRandom: whatever the expression, the data and their order, and however often a client
// goes and comes, its steps within the horizon are what instant queries say.
func TestRandom(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { testRandom(t, seed) })
	}
}

func testRandom(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 77))
	o := live.Options{Delay: []time.Duration{-1, 200 * time.Millisecond, 500 * time.Millisecond}[rng.IntN(3)], Ring: []int{8, 256}[rng.IntN(2)],
		Horizon: time.Duration(2+rng.IntN(6)) * time.Second, MaxBackfill: time.Hour, Workers: 1 + rng.IntN(2)}
	r := newRig(t, o)
	w := &world{rng: rng, late: 2 * o.Horizon.Milliseconds(), val: map[string]float64{}, count: map[string][]int64{}}
	for i := range int64(15) {
		r.append(w.batch(start.Add(-past).UnixMilli() - 14_000 + i*1000))
		w.last = nil // never again
	}
	for i := range int64(15) {
		r.append(w.batch(start.UnixMilli() - 15_000 + i*1000))
	}
	k := r.crowd(rng, 12)
	for range 20 {
		for range 1 + rng.IntN(3) {
			r.append(w.batch(r.clock.Now().UnixMilli()))
			r.clock.Advance(time.Duration(20+rng.IntN(1000)) * time.Millisecond)
		}
		k.stir()
		r.clock.Advance(time.Second) // in which each evaluation looks for what is late
		for _, c := range k.clients {
			if !k.away[c] {
				c.settleOn(k.first[c])
			}
		}
		if t.Failed() {
			t.Fatal("stopped at the first wrong state")
		}
	}
}
