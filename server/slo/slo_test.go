package slo_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/slo"
	sample "github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

type fixture struct {
	store *querytest.Store
	q     *query.Engine
	clk   *clock.Manual
	api   *slo.API
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{store: querytest.New(), clk: clock.NewManual(noon)}
	var err error
	if f.q, err = query.New(f.store, nil); err != nil {
		t.Fatal(err)
	}
	if f.api, err = slo.NewAPI(f.q, &slo.Options{Clock: f.clk}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.api.Close(); err != nil || f.store.Open() != 0 {
			t.Errorf("%v, %d selections open", err, f.store.Open())
		}
	})
	return f
}

func (f *fixture) add(t *testing.T, ls labels.Labels, at time.Time, v float64) {
	t.Helper()
	b := &sample.Batch{Series: []sample.BatchSeries{{Key: sample.AppendKey(nil, ls), To: 1}}, T: []int64{at.UnixMilli()}, V: []float64{v}}
	if _, err := f.store.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// traffic stores a request a second for a time before noon, of which badly(age) a second fail.
func (f *fixture) traffic(t *testing.T, before time.Duration, badly func(age time.Duration) float64) {
	good, bad := 0.0, 0.0
	const every = time.Minute
	for age := before; age >= 0; age -= every {
		f.add(t, labels.FromStrings("__name__", "requests_total", "code", "200"), noon.Add(-age), good)
		f.add(t, labels.FromStrings("__name__", "requests_total", "code", "500"), noon.Add(-age), bad)
		b := badly(age) * every.Seconds()
		good, bad = good+every.Seconds()-b, bad+b
	}
}

func objective() slo.Objective {
	return slo.Objective{Name: `shop "a"`, Target: 99.9, Good: `requests_total{code!~"5.."}`, Total: "requests_total", Labels: map[string]string{"team": "shop"}}
}

func valid(t *testing.T, os ...slo.Objective) []slo.Objective {
	t.Helper()
	for i := range os {
		if faults := os[i].Validate(parser.NewParser(parser.Options{})); len(faults) > 0 {
			t.Fatal(faults)
		}
	}
	return os
}

// evaluate does what a rule evaluator does with the groups, once, at noon: it stores what
// is recorded and returns the severities of the alerts that fire, with their values.
func (f *fixture) evaluate(t *testing.T, os []slo.Objective) map[string]float64 {
	t.Helper()
	groups, err := slo.Groups(os, f.q.Parser())
	if err != nil {
		t.Fatal(err)
	}
	firing := map[string]float64{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			res, err := f.q.Instant(t.Context(), r.Expr, noon, query.QueryOptions{})
			if err != nil {
				t.Fatalf("%s: %v", r.Expr, err)
			}
			v, err := res.Vector()
			if err != nil {
				t.Fatal(err)
			}
			distinct := map[string]bool{}
			for _, s := range v {
				if r.Alert != "" {
					firing[r.Labels["severity"]] = s.F
					continue
				}
				b := labels.NewBuilder(s.Metric).Set("__name__", r.Record)
				for k, l := range r.Labels {
					b.Set(k, l)
				}
				if ls := b.Labels().String(); distinct[ls] {
					t.Errorf("%s gives %s twice", r.Expr, ls)
				} else {
					distinct[ls] = true
				}
				f.add(t, b.Labels(), noon, s.F)
			}
			res.Close()
		}
	}
	return firing
}

func (f *fixture) status(t *testing.T) []slo.Status {
	t.Helper()
	var rc fasthttp.RequestCtx
	rc.Request.SetRequestURI(slo.Path)
	var a struct {
		Status string
		Data   struct{ Objectives []slo.Status }
	}
	if !f.api.Handle(&rc) || rc.Response.StatusCode() != 200 {
		t.Fatalf("%d %s", rc.Response.StatusCode(), rc.Response.Body())
	}
	if err := json.Unmarshal(rc.Response.Body(), &a); err != nil || a.Status != "success" {
		t.Fatalf("%v %s", err, rc.Response.Body())
	}
	return a.Data.Objectives
}

func near(a *float64, b float64) bool { return a != nil && math.Abs(*a-b) < 1e-9 }

// TestBurning: the alerts fire as the workbook has it, the endpoint says so before and after
// anything is recorded, and both agree.
func TestBurning(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name   string
		badly  func(age time.Duration) float64
		firing map[string]float64 // severity to burn rate
		state  string
	}{
		{"well", func(time.Duration) float64 { return 0.0005 }, map[string]float64{}, "ok"},
		{"slowly", func(time.Duration) float64 { return 0.0015 }, map[string]float64{"ticket": 1.5}, "ticket"},
		{"fast", func(age time.Duration) float64 {
			if age <= 2*time.Hour {
				return 0.02
			}
			return 0
		}, map[string]float64{"page": 20}, "page"},
		{"over", func(age time.Duration) float64 { // the short window ends the alert
			if age <= time.Hour && age > 8*time.Minute {
				return 0.02
			}
			return 0
		}, map[string]float64{}, "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.traffic(t, 4*day, c.badly)
			os := valid(t, objective())
			f.api.Set(os)
			before := f.status(t)
			firing := f.evaluate(t, os)
			f.clk.Advance(time.Second)
			after := f.status(t)
			if len(before) != 1 || len(after) != 1 || before[0].State != c.state || after[0].State != c.state {
				t.Errorf("computed %+v\nrecorded %+v\nwant %s", before, after, c.state)
			}
			for w, b := range before[0].BurnRates {
				if a := after[0].BurnRates[w]; a == nil || b == nil || math.Abs(*a-*b) > 1e-6 {
					t.Errorf("%s: computed %v, recorded %v", w, b, a)
				}
			}
			for severity, burn := range c.firing {
				if math.Abs(firing[severity]-burn) > 0.02*burn {
					t.Errorf("%s: %v, want %v", severity, firing[severity], burn)
				}
			}
			for _, a := range after[0].Alerts {
				if _, fires := firing[a.Severity]; fires != (a.State == "firing") {
					t.Errorf("the rules say %v, the endpoint %+v", firing, a)
				}
				if _, fires := c.firing[a.Severity]; fires != (a.State == "firing") {
					t.Errorf("%+v, want %v", a, c.firing)
				}
			}
		})
	}
}

// TestNumbers: ratio and budget are exact where the answer is known.
func TestNumbers(t *testing.T) {
	f := newFixture(t)
	f.traffic(t, 31*24*time.Hour, func(time.Duration) float64 { return 0.00075 })
	o := objective()
	f.api.Set(valid(t, o))
	s := f.status(t)[0]
	if !near(s.Ratio, 0.99925) || !near(s.ErrorRatio, 0.00075) || !near(s.ErrorBudget.Left, 0.25) || s.ErrorBudget.Total != 0.001 || s.Window != "30d" || s.Labels["team"] != "shop" {
		b, _ := json.Marshal(s)
		t.Errorf("%s", b)
	}
}

// TestChangedLabels: what was recorded before an objective's labels were changed, and can be
// seen for some minutes, is not taken for its own.
func TestChangedLabels(t *testing.T) {
	f := newFixture(t)
	f.traffic(t, 31*24*time.Hour, func(time.Duration) float64 { return 0.02 })
	before := valid(t, objective())
	f.evaluate(t, before)
	after := valid(t, objective())
	after[0].Labels = map[string]string{"team": "market", "a b": "c"}
	f.evaluate(t, after) // fails the test if a rule gives two series with the same labels
	f.api.Set(after)
	if s := f.status(t)[0]; s.State != "page" || s.Error != "" || !near(s.ErrorRatio, 0.02) {
		t.Errorf("%+v", s)
	}
	after[0].Labels = nil
	f.api.Set(after)
	f.clk.Advance(2 * time.Second)
	if s := f.status(t)[0]; s.State != "page" || s.Error != "" || !near(s.ErrorRatio, 0.02) {
		t.Errorf("%+v", s)
	}
}

// TestScaling: the factors are the workbook's for 30 days, and spend the same part of the
// budget of other windows.
func TestScaling(t *testing.T) {
	for window, want := range map[time.Duration][]float64{
		30 * 24 * time.Hour: {3, 1, 14.4, 6}, 28 * 24 * time.Hour: {2.8, 0.933333333, 13.44, 5.6}, 7 * 24 * time.Hour: {0.7, 0.233333333, 3.36, 1.4},
	} {
		f := newFixture(t)
		o := objective()
		o.Window = window
		f.api.Set(valid(t, o))
		var got []float64
		for _, a := range f.status(t)[0].Alerts {
			for _, c := range a.Conditions {
				got = append(got, c.Factor)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", window, got, want)
		}
	}
}

// TestWithoutData: no events is no data and no alert; no good event at all is all bad.
func TestWithoutData(t *testing.T) {
	f := newFixture(t)
	o := objective()
	f.api.Set(valid(t, o))
	if s := f.status(t)[0]; s.State != "no_data" || s.Ratio != nil || s.BurnRates["5m"] != nil {
		t.Errorf("%+v", s)
	}
	for age := time.Hour; age >= 0; age -= time.Minute {
		f.add(t, labels.FromStrings("__name__", "requests_total", "code", "500"), noon.Add(-age), float64(60-age/time.Minute))
	}
	f.clk.Advance(time.Second)
	if s := f.status(t)[0]; s.State != "page" || !near(s.Ratio, 0) || !near(s.ErrorBudget.Left, -999) {
		t.Errorf("%+v", s)
	}
}

// TestExpressions: a ratio of one's own, and one that gives too many series.
func TestExpressions(t *testing.T) {
	f := newFixture(t)
	f.traffic(t, 8*24*time.Hour, func(time.Duration) float64 { return 0.01 })
	f.api.Set(valid(t,
		slo.Objective{Name: "ratio", Target: 95, Window: 7 * 24 * time.Hour, ErrorRatio: `sum(rate(requests_total{code="500"}[$window])) / sum(rate(requests_total[$window]))`},
		slo.Objective{Name: "mixed", Target: 95, Good: `sum(rate(requests_total{code="200"}[$window]))`, Total: "requests_total"},
		slo.Objective{Name: "many", Target: 95, ErrorRatio: `rate(requests_total[$window])`}))
	s := f.status(t)
	if !near(s[0].ErrorRatio, 0.01) || !near(s[1].ErrorRatio, 0.01) || s[0].State != "ok" {
		t.Errorf("%+v", s)
	}
	if s[2].State != "error" || !strings.Contains(s[2].Error, "2 series") {
		t.Errorf("%+v", s[2])
	}
}

// TestRulesAreUpstreams: what comes out is a rule file that upstream accepts.
func TestRulesAreUpstreams(t *testing.T) {
	f := newFixture(t)
	groups, err := slo.Groups(valid(t, objective()), f.q.Parser())
	if err != nil {
		t.Fatal(err)
	}
	file, err := yaml.Marshal(groups)
	if err != nil {
		t.Fatal(err)
	}
	again, faults := rulefmt.Parse(file, false, model.UTF8Validation, f.q.Parser(), slog.New(slog.DiscardHandler))
	if len(faults) > 0 {
		t.Fatalf("%v\n%s", faults, file)
	}
	records, alerts := 0, 0
	for _, g := range again.Groups {
		for _, r := range g.Rules {
			if r.Alert != "" {
				alerts++
			} else {
				records++
			}
			if r.Labels["team"] != "shop" || r.Labels["slo"] != `shop "a"` {
				t.Errorf("%+v", r)
			}
		}
	}
	if len(again.Groups) != 2 || records != 19 || alerts != 2 {
		t.Errorf("%d groups, %d records, %d alerts\n%s", len(again.Groups), records, alerts, file)
	}
}

func TestFaults(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	for _, c := range []struct {
		change func(*slo.Objective)
		want   string
	}{
		{func(o *slo.Objective) { o.Name = "" }, "name: it is missing"},
		{func(o *slo.Objective) { o.Name = "a\nb" }, "name: want"},
		{func(o *slo.Objective) { o.Target = 100 }, "target: want"},
		{func(o *slo.Objective) { o.Target = math.NaN() }, "target: want"},
		{func(o *slo.Objective) { o.Window = time.Hour }, "window: want whole hours from 7d to 366d"},
		{func(o *slo.Objective) { o.Good = "" }, "good: it is missing"},
		{func(o *slo.Objective) { o.Total = "a offset 5m" }, "total: want a plain selector"},
		{func(o *slo.Objective) { o.Total = "sum(a)" }, "total: want a plain selector"},
		{func(o *slo.Objective) { o.Total = "rate(a[$window]" }, "total: 1:"},
		{func(o *slo.Objective) { o.Total = "a[$window]" }, "total: want an expression that gives an instant vector"},
		{func(o *slo.Objective) { o.ErrorRatio = "x" }, "error-ratio: give either"},
		{func(o *slo.Objective) { o.Good, o.Total, o.ErrorRatio = "", "", "x" }, "error-ratio: want an expression over a range of $window"},
		{func(o *slo.Objective) { o.Labels = map[string]string{"severity": "x"} }, `labels: "severity"`},
		{func(o *slo.Objective) { o.Labels = map[string]string{"a-b": "x"} }, `labels: "a-b"`},
		{func(o *slo.Objective) { o.Labels = map[string]string{"a": ""} }, "labels: a: want a value"},
	} {
		o := objective()
		c.change(&o)
		faults := o.Validate(p)
		if len(faults) != 1 || !strings.HasPrefix(fmt.Sprintf("%s: %v", faults[0].Key, faults[0].Err), c.want) {
			t.Errorf("%v, want %s", faults, c.want)
		}
	}
}

func TestHTTP(t *testing.T) {
	f := newFixture(t)
	do := func(method, path string) (bool, int, string) {
		var rc fasthttp.RequestCtx
		rc.Request.Header.SetMethod(method)
		rc.Request.SetRequestURI(path)
		return f.api.Handle(&rc), rc.Response.StatusCode(), string(rc.Response.Body())
	}
	if ok, _, _ := do("GET", "/api/v1/slos"); ok {
		t.Error("answers another path")
	}
	if _, code, _ := do("POST", slo.Path); code != 405 {
		t.Error(code)
	}
	if _, _, body := do("GET", slo.Path); !strings.Contains(body, `"objectives":[]`) {
		t.Error(body)
	}
	f.clk.Advance(time.Second)
	f.api.Set(valid(t, objective()))
	f.store.SetError(sample.ErrOverloaded)
	if _, code, body := do("GET", slo.Path); code != 503 || !strings.Contains(body, "unavailable") {
		t.Error(code, body)
	}
	f.store.SetError(nil)
}
