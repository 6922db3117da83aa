package live_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

var start = time.UnixMilli(1_700_000_000_000)

// rig is a hub over a real engine, with a clock that the test moves.
type rig struct {
	t     testing.TB
	dir   string
	db    *engine.DB
	q     *query.Engine
	hub   *live.Hub
	opts  live.Options
	gaps  *gaps // what feeds and reads go through; nil: nothing
	clock *clock.Manual
	wake  chan struct{}
}

func newRig(t testing.TB, o live.Options) *rig { return newGappyRig(t, o, nil) }

func newGappyRig(t testing.TB, o live.Options, g *gaps) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), opts: o, gaps: g, clock: clock.NewManual(start), wake: make(chan struct{}, 1)}
	r.opts.Clock = r.clock
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.db, err = engine.Open(r.dir, &engine.Options{Clock: r.clock, Retention: -1, Shards: 3, FlushInterval: math.MaxInt64}); err != nil {
		r.t.Fatal(err)
	}
	o := r.opts
	var f model.Feeder = r.db
	var reader model.Reader = r.db
	if r.gaps != nil {
		r.gaps.Feeder, r.gaps.Reader = f, reader
		f, reader = r.gaps, r.gaps
	}
	if r.q, err = query.New(reader, &query.Options{Clock: r.clock, LookbackDelta: 20 * time.Second}); err != nil {
		r.t.Fatal(err)
	}
	if r.hub, err = live.New(f, reader, r.q, &o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) close() {
	if err := r.hub.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *rig) append(b *model.Batch) {
	r.t.Helper()
	if res, err := r.db.Append(context.Background(), b); err != nil || len(res.Rejected) > 0 {
		r.t.Fatal(res.Rejected, err)
	}
}

// client reads one subscription and keeps what it was told.
type client struct {
	*live.Subscription
	r      *rig
	names  map[uint32]labels.Labels
	steps  map[int64]*live.Step // in their newest revision
	rows   map[int64]map[string]live.Value
	seen   map[string]bool // t and rev
	lastT  int64           // newest step, or error
	fixed  int
	stale  map[uint32]bool
	errs   int
	drops  []live.Dropped
	strict bool // nothing may be dropped
}

func (r *rig) subscribe(req live.Request) *client {
	r.t.Helper()
	req.Wake = func() {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	s, err := r.hub.Subscribe(context.Background(), req)
	if err != nil {
		r.t.Fatalf("%s: %v", req.Query, err)
	}
	r.t.Cleanup(s.Close)
	return &client{Subscription: s, r: r, names: map[uint32]labels.Labels{}, steps: map[int64]*live.Step{}, rows: map[int64]map[string]live.Value{}, seen: map[string]bool{}, stale: map[uint32]bool{}, strict: true}
}

// until reads until the step at t has come.
func (c *client) until(t int64) {
	c.r.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		evs := c.Poll(nil)
		for _, ev := range evs {
			c.take(ev)
		}
		if len(evs) > 0 {
			continue
		}
		if c.lastT >= t {
			return
		}
		if err := c.Err(); err != nil {
			c.r.t.Fatal(err)
		}
		select {
		case <-c.r.wake:
		case <-deadline:
			c.r.t.Fatalf("%s: the step at %d does not come; the newest is of %d", c.Info().Query, t, c.lastT)
		}
	}
}

func (c *client) take(ev live.Event) {
	t := c.r.t
	t.Helper()
	switch ev.Kind {
	case live.SeriesKind:
		for _, d := range ev.Series {
			if _, told := c.names[d.ID]; told {
				t.Errorf("%s: series %d is told twice", c.Info().Query, d.ID)
			}
			c.names[d.ID] = d.Labels
		}
	case live.DataKind:
		c.takeStep(ev.Step)
	case live.StaleKind:
		for _, id := range ev.Stale {
			c.stale[id] = true
		}
	case live.DroppedKind:
		c.drops = append(c.drops, ev.Dropped)
		if c.strict {
			t.Errorf("%s: dropped %+v", c.Info().Query, ev.Dropped)
		}
	case live.ErrorKind:
		c.errs++
		delete(c.steps, ev.T)
		c.lastT = max(c.lastT, ev.T)
	}
}

func (c *client) takeStep(s *live.Step) {
	t := c.r.t
	t.Helper()
	key := fmt.Sprint(s.T, " ", s.Rev)
	if c.seen[key] {
		t.Errorf("%s: step %s came twice", c.Info().Query, key)
	}
	c.seen[key] = true
	old := c.steps[s.T]
	if old != nil && old.Rev >= s.Rev {
		t.Errorf("%s: revision %d of step %d follows %d", c.Info().Query, s.Rev, s.T, old.Rev)
	}
	if s.Rev > 0 {
		c.fixed++
	} else {
		if s.T < c.lastT {
			t.Errorf("%s: step %d comes behind %d", c.Info().Query, s.T, c.lastT)
		}
		c.lastT = s.T
	}
	rows := map[string]live.Value{}
	for i, v := range s.Values {
		rows[c.names[v.Series].String()] = v
		if _, told := c.names[v.Series]; !told {
			t.Errorf("%s: series %d of step %d was never told", c.Info().Query, v.Series, s.T)
		}
		if i > 0 && s.Values[i-1].Series >= v.Series {
			t.Errorf("%s: step %d is not in order of series", c.Info().Query, s.T)
		}
		delete(c.stale, v.Series)
	}
	c.steps[s.T], c.rows[s.T] = s, rows
}

// check compares the step at t with what an instant query says now.
func (c *client) check(t int64) {
	c.r.t.Helper()
	if why := c.wrong(t); why != "" {
		c.r.t.Error(why)
	}
}

// wrong says what check finds.
func (c *client) wrong(t int64) string {
	text := c.Info().Query
	res, err := c.r.q.Instant(context.Background(), text, time.UnixMilli(t), query.QueryOptions{})
	step := c.steps[t]
	if err != nil {
		if step != nil {
			return fmt.Sprintf("%s at %d: got %v, but the engine says %v", text, t, step.Values, err)
		}
		return ""
	}
	defer res.Close()
	want := map[string]promql.Sample{}
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			want[s.Metric.String()] = s
		}
	case promql.Scalar:
		want["{}"] = promql.Sample{F: v.V}
	}
	if step == nil {
		return fmt.Sprintf("%s at %d: no step; want %v", text, t, want)
	}
	if len(c.rows[t]) != len(step.Values) {
		return fmt.Sprintf("%s at %d: a series is there twice: %v", text, t, step.Values)
	}
	exact := !strings.ContainsAny(text, "(+")
	for name, v := range c.rows[t] {
		w, ok := want[name]
		delete(want, name)
		if !ok || (v.H == nil) != (w.H == nil) || v.H == nil && !same(v.V, w.F, exact) || v.H != nil && !v.H.Equals(w.H) {
			return fmt.Sprintf("%s at %d (%s): %s is %v %v, want %v %v (known: %v)", text, t, c.Info().Mode, name, v.V, v.H, w.F, w.H, ok)
		}
	}
	if len(want) > 0 {
		return fmt.Sprintf("%s at %d (%s): lacks %v", text, t, c.Info().Mode, want)
	}
	return ""
}

func same(a, b float64, exact bool) bool {
	if math.Float64bits(a) == math.Float64bits(b) {
		return true
	}
	if exact {
		return false
	}
	return math.IsNaN(a) && math.IsNaN(b) || a == b || math.Abs(a-b) <= 1e-12*max(math.Abs(a), math.Abs(b))
}

// randomExpr makes an expression that is mostly incremental.
func randomExpr(rng *rand.Rand) string {
	pick := func(xs ...string) string { return xs[rng.IntN(len(xs))] }
	sel := pick(`m`, `m{s="1"}`, `{__name__=~"m|n"}`, `n{s=~"[0-3]"}`, `m{g!="a"}`, `n`)
	if rng.IntN(12) == 0 {
		return pick(`m + on(s,g) group_left n`, `topk(2, m)`, `absent(m{s="9"})`, `m offset 3s`, `max_over_time(rate(m[5s])[6s:2s])`, `scalar(sum(m))`, `quantile by (g) (0.5, n)`, `vector(1)`, `m @ end()`)
	}
	expr := sel
	if rng.IntN(4) > 0 {
		fn := pick("rate", "increase", "delta", "irate", "idelta", "changes", "resets", "count_over_time", "present_over_time",
			"last_over_time", "sum_over_time", "avg_over_time", "min_over_time", "max_over_time")
		expr = fmt.Sprintf("%s(%s[%s])", fn, sel, pick("1s", "2500ms", "5s", "12s"))
	}
	for range rng.IntN(3) {
		by := pick("", " by (g)", " by (s)", " without (s)", " without (g)", " by (g, s, none)", " by (__name__)")
		expr = fmt.Sprintf("%s%s (%s)", pick("sum", "count", "avg", "min", "max", "group"), by, expr)
	}
	return expr
}

// generator makes samples: counters with resets, gauges with every odd value, stale
// markers, series that pause, late ones, and now and then a histogram.
type generator struct {
	rng  *rand.Rand
	val  map[string]float64
	late int64 // ms that a sample is late at most; 0: 8 s
}

func (g *generator) batch(now int64, odd bool) *model.Batch {
	b := &model.Batch{}
	late := cmp.Or(g.late, 8000)
	for s := range 6 {
		for _, name := range []string{"m", "n"} {
			if g.rng.IntN(3) == 0 {
				continue
			}
			ls := labels.FromStrings("__name__", name, "g", string(rune('a'+s%3)), "s", fmt.Sprint(s))
			bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist)}
			for range 1 + g.rng.IntN(3) {
				t := now - g.rng.Int64N(900)
				if g.rng.IntN(10) == 0 {
					t = now - g.rng.Int64N(late)
				}
				if odd && g.rng.IntN(150) == 0 {
					b.Hist = append(b.Hist, model.HistogramSample{T: t, H: &histogram.Histogram{Count: 3, Sum: 2, Schema: 1, ZeroCount: 3}})
					continue
				}
				b.T, b.V = append(b.T, t), append(b.V, g.value(ls.String(), name, odd))
			}
			bs.To, bs.HTo = len(b.T), len(b.Hist)
			b.Series = append(b.Series, bs)
		}
	}
	return b
}

func (g *generator) value(key, name string, odd bool) float64 {
	switch k := g.rng.IntN(40); {
	case k == 0:
		return math.Float64frombits(0x7ff0000000000002)
	case k == 1 && odd:
		return []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), math.MaxFloat64}[g.rng.IntN(5)]
	case name == "n":
		return math.Round(g.rng.NormFloat64()*1e4) / 1e3
	case k == 2:
		g.val[key] = 0
	}
	g.val[key] += float64(g.rng.IntN(100)) / 10
	return g.val[key]
}

// TestDifferential: every step that is pushed, and every correction within the horizon,
// is what an instant query says at the same applied state, whatever the data and the
// expression, across restarts of evaluations and flushes.
func TestDifferential(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 11))
			const horizon = 6 * time.Second
			o := live.Options{Horizon: horizon, Delay: -1}
			r := newRig(t, o)
			g := &generator{rng: rng, val: map[string]float64{}}
			odd := seed%2 == 1
			now := start.UnixMilli()
			for i := range int64(15) {
				r.append(g.batch(now-15_000+i*1000, odd))
			}
			var clients []*client
			incremental := 0
			for range 25 {
				c := r.subscribe(live.Request{Query: randomExpr(rng)})
				if c.Info().Mode == live.ModeIncremental {
					incremental++
				}
				clients = append(clients, c)
			}
			if incremental < 10 {
				t.Fatalf("only %d of the expressions are incremental", incremental)
			}
			first := now + 1000
			fixed := 0
			for i := range int64(25) {
				now += 1000
				r.append(g.batch(now, odd))
				if i%10 == 9 {
					if err := r.db.Flush(context.Background()); err != nil {
						t.Fatal(err)
					}
				}
				r.clock.Advance(time.Second)
				for _, c := range clients {
					c.until(now)
					for at := max(first, now-horizon.Milliseconds()+1000); at <= now; at += 1000 {
						c.check(at)
					}
				}
				if t.Failed() {
					t.Fatal("stopped at the first wrong step")
				}
			}
			for _, c := range clients {
				fixed += c.fixed
			}
			if fixed == 0 {
				t.Error("no correction came")
			}
		})
	}
}

// TestLateAtTheStep: late samples of a selector at the step's own time change it, in whatever
// subquery that stands.
func TestLateAtTheStep(t *testing.T) {
	for _, query := range []string{
		`sum_over_time((m @ end())[5s:1s] offset 10s)`,
		fmt.Sprintf(`sum_over_time((m @ start())[5s:1s] @ %d)`, start.Unix()),
		`max_over_time(sum_over_time(m[3s:1s] @ end())[5s:1s] offset 15s)`,
	} {
		r := newRig(t, live.Options{Delay: -1})
		c := r.subscribe(live.Request{Query: query})
		for i := range int64(5) {
			r.append(gauge("a", start.UnixMilli()+i*1000, float64(i))) // of a step that is out
			r.clock.Advance(time.Second)
			c.until(start.UnixMilli() + (i+1)*1000)
		}
		c.settle()
		if c.fixed == 0 {
			t.Errorf("%s: nothing was corrected", query)
		}
	}
}
