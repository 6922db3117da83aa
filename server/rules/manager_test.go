package rules

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/alertmanager"
	"github.com/strandline-db/strandline/server/webhook/hooktest"
	"github.com/strandline-db/strandline/shard/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a manager with all that it needs; restart makes another over the same stores.
type process struct {
	t      *testing.T
	data   *querytest.Store
	engine *query.Engine
	store  *hooktest.Store
	reg    *prometheus.Registry
	m      *Manager
	start  time.Time
	leads  atomic.Bool
	moved  chan struct{}
	slow   atomic.Int64 // how long each query takes
	mu     struct {
		sync.Mutex
		told []string
	}
}

func (p *process) Leads() bool              { return p.leads.Load() }
func (p *process) Changed() <-chan struct{} { return p.moved }

func (p *process) Send(list []alertmanager.Alert) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range list {
		state := "firing"
		if !a.EndsAt.After(time.Now()) {
			state = "resolved"
		}
		p.mu.told = append(p.mu.told, fmt.Sprintf("%s %s since %d", state, a.Labels.Get("instance"), int(a.StartsAt.Sub(p.start).Seconds())))
	}
}

func (p *process) told() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.mu.told
	p.mu.told = nil
	return list
}

// inBubble runs f with a manager in a bubble, where time is the test's.
func inBubble(t *testing.T, f func(*process)) {
	synctest.Test(t, func(t *testing.T) {
		p := &process{t: t, data: querytest.New(), store: hooktest.NewStore(), start: time.Now(), moved: make(chan struct{}, 1)}
		p.leads.Store(true)
		var err error
		if p.engine, err = query.New(p.data, nil); err != nil {
			t.Fatal(err)
		}
		p.open()
		defer func() { p.m.Close() }()
		f(p)
	})
}

func (p *process) open() {
	p.t.Helper()
	p.reg = prometheus.NewRegistry()
	q := EngineQuery(p.engine, "rules")
	var err error
	p.m, err = New(&Options{Queryable: p.engine.Queryable(), Appender: p.data, Notifier: p, Store: p.store, Leadership: p, Registerer: p.reg,
		Query: func(ctx context.Context, expr string, t time.Time) (promql.Vector, error) {
			time.Sleep(time.Duration(p.slow.Load()))
			return q(ctx, expr, t)
		}})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) restart(file string) {
	p.t.Helper()
	p.m.Close()
	p.open()
	p.set(file)
}

func (p *process) set(file string) {
	p.t.Helper()
	groups, err := Parse("f.yml", []byte(file), p.engine.Parser(), Defaults{Interval: 10 * time.Second})
	if err != nil {
		p.t.Fatal(err)
	}
	p.m.Set(groups)
}

// until lets time go on to d after the start, with a sample of up every 5 s for each of the
// instances, given as "a=1".
func (p *process) until(d time.Duration, ups ...string) {
	p.t.Helper()
	for end := p.start.Add(d); time.Now().Before(end); {
		b := &model.Batch{}
		for _, s := range ups {
			name, v, _ := strings.Cut(s, "=")
			addFloat(b, labels.FromStrings("__name__", "up", "instance", name), time.Now().UnixMilli(), float64(v[0]-'0'))
		}
		if _, err := p.data.Append(context.Background(), b); err != nil {
			p.t.Fatal(err)
		}
		time.Sleep(min(5*time.Second, time.Until(end)))
	}
	synctest.Wait()
}

func (p *process) expect(what string, got, want any) {
	p.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// series returns the samples of one metric: their times since the start in ms, and values.
func (p *process) series(name string) (times []time.Duration, values []string) {
	p.t.Helper()
	for _, s := range dump(p.t, p.engine.Queryable()) {
		var ms int64
		var bits uint64
		if i := strings.LastIndex(s, "} "); strings.Contains(s, `__name__="`+name+`"`) {
			fmt.Sscanf(s[i+2:], "%d %x", &ms, &bits)
			times = append(times, time.UnixMilli(ms).Sub(p.start))
			v := fmt.Sprint(math.Float64frombits(bits))
			if math.Float64bits(staleNaN) == bits {
				v = "stale"
			}
			values = append(values, v)
		}
	}
	return times, values
}

// gauge returns a metric of our own.
func (p *process) gauge(name string) float64 {
	p.t.Helper()
	all, err := p.reg.Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	p.t.Fatalf("no metric %s", name)
	return 0
}

const recording = "groups:\n- name: g\n  rules:\n  - record: n\n    expr: count(up)\n"

func TestEvaluatesAtStableTimes(t *testing.T) {
	inBubble(t, func(p *process) {
		p.set(recording)
		p.until(47*time.Second, "a=1")
		times, values := p.series("n")
		p.expect("values", values, []string{"1", "1", "1", "1"})
		first := times[0]
		if first <= 0 || first > 10*time.Second {
			t.Fatalf("first at %v", first)
		}
		p.restart(recording)
		p.until(97*time.Second, "a=1")
		times, _ = p.series("n")
		for _, x := range times {
			if (x-first)%(10*time.Second) != 0 {
				t.Fatalf("at %v, first at %v", x, first)
			}
		}
		p.expect("times", len(times), 9)
	})
}

func TestMissedIterationsAreCounted(t *testing.T) {
	inBubble(t, func(p *process) {
		p.slow.Store(int64(25 * time.Second))
		p.set(recording)
		p.until(2*time.Minute, "a=1")
		times, _ := p.series("n")
		p.expect("missed", p.gauge("strandline_rule_group_iterations_missed_total") > 0, true)
		for i := range times[1:] {
			if d := times[i+1] - times[i]; d < 20*time.Second || d%(10*time.Second) != 0 {
				t.Fatalf("%v between iterations", d)
			}
		}
	})
}

// Rules that a reload removes, renames or moves to another group leave no series behind,
// and those that stay have no gap.
func TestReload(t *testing.T) {
	inBubble(t, func(p *process) {
		two := "  - record: gone\n    expr: count(up)\n"
		p.set(recording + two)
		p.until(45*time.Second, "a=1")
		p.set(recording)
		p.until(95*time.Second, "a=1")
		_, gone := p.series("gone")
		p.expect("of the removed rule", gone, []string{"1", "1", "1", "1", "stale"})
		_, n := p.series("n")
		p.expect("of the other", slices.Contains(n, "stale"), false)
		p.set(strings.Replace(recording, "name: g", "name: h", 1)) // the group is renamed
		p.until(3*time.Minute, "a=1")
		_, n = p.series("n")
		p.expect("of the renamed group", slices.Contains(n, "stale"), false)
		p.set("groups: []")
		p.until(4*time.Minute, "a=1")
		_, n = p.series("n")
		p.expect("of the removed group", n[len(n)-1], "stale")
		p.expect("markers", strings.Count(fmt.Sprint(n), "stale"), 1)
	})
}

// A series that moves from one rule to another, at one time, is not marked as ended.
func TestSeriesThatMovesBetweenRules(t *testing.T) {
	inBubble(t, func(p *process) {
		p.set("groups:\n- name: g\n  rules:\n  - record: x\n    expr: up == 1\n  - record: x\n    expr: up == 0\n")
		p.until(40*time.Second, "a=1")
		p.until(80*time.Second, "a=0")
		p.until(120*time.Second, "a=1")
		_, values := p.series("x")
		p.expect("stale", slices.Contains(values, "stale"), false)
		p.expect("both", slices.Contains(values, "1") && slices.Contains(values, "0"), true)
	})
}

const alerting = "groups:\n- name: g\n  rules:\n  - alert: Down\n    expr: up == 0\n    for: 20s\n  - alert: Now\n    expr: up == 0\n"

// After a restart, or when another node takes over, an alert that fires is not told before
// the resend delay, and since when it fires is kept; one that ended meanwhile is told.
func TestNoStormAfterRestart(t *testing.T) {
	for _, takeover := range []bool{false, true} {
		inBubble(t, func(p *process) {
			p.set(alerting)
			p.until(60*time.Second, "a=0", "b=0")
			told := p.told()
			p.expect("told at first", len(told), 4)
			again := func() {
				if !takeover {
					p.restart(alerting)
					return
				}
				p.leads.Store(false)
				p.moved <- struct{}{}
				synctest.Wait()
				p.expect("evaluates", p.gauge("strandline_rule_evaluating"), 0)
				p.leads.Store(true)
				p.moved <- struct{}{}
			}
			again()
			p.until(75*time.Second, "a=0", "b=0")
			p.expect("told soon after", p.told(), []string{})
			p.until(4*time.Minute, "a=0", "b=0")
			for _, s := range p.told() {
				if !slices.Contains(told, s) {
					t.Errorf("told %q, before it was %q", s, told)
				}
			}
			again()
			p.until(6*time.Minute, "a=0", "b=1") // b has recovered meanwhile
			var resolved []string
			for _, s := range p.told() {
				if strings.HasPrefix(s, "resolved") {
					resolved = append(resolved, s)
				} else if !slices.Contains(told, s) {
					t.Errorf("told %q, before it was %q", s, told)
				}
			}
			slices.Sort(resolved)
			var want []string
			for _, s := range told {
				if strings.Contains(s, " b ") {
					want = append(want, strings.Replace(s, "firing", "resolved", 1))
				}
			}
			slices.Sort(want)
			p.expect("resolved", slices.Compact(resolved), want)
		})
	}
}

func TestOnlyTheLeaderEvaluates(t *testing.T) {
	inBubble(t, func(p *process) {
		p.m.Close()
		p.leads.Store(false)
		p.open()
		p.set(recording)
		p.until(time.Minute, "a=1")
		times, _ := p.series("n")
		p.expect("samples", len(times), 0)
		p.leads.Store(true)
		p.moved <- struct{}{}
		p.until(2*time.Minute, "a=1")
		times, _ = p.series("n")
		p.expect("samples", len(times), 6)
	})
}

func TestFaultsNameFileAndLine(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.yml", recording)
	write("b.yml", "groups:\n- name: g\n  rules:\n  - record: x\n    expr: sum(\n  - alert: y\n    expr: up\n    labels: {a: '{{ $x }}'}\n  - alert: z\n    expr: up\n    annotations:\n      a-b: x\n- name: g\n")
	write("c.yml", "groups:\n- nam: g\n")
	p := parser.NewParser(parser.Options{})
	_, err := Load([]string{filepath.Join(dir, "*.yml"), filepath.Join(dir, "none.yml"), filepath.Join(dir, "none-*.yml")}, p, Defaults{Interval: time.Minute})
	for _, want := range []string{"b.yml:5:11: ", "b.yml:6: ", "b.yml:13: groupname", "c.yml:2: ", "none.yml"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "a.yml") || strings.Contains(err.Error(), "none-") {
		t.Errorf("got %v", err)
	}
	groups, err := Load([]string{filepath.Join(dir, "a*.yml"), filepath.Join(dir, "a.yml")}, p, Defaults{Interval: time.Minute, Offset: time.Second})
	if err != nil || len(groups) != 1 || groups[0].Interval != time.Minute || groups[0].Offset != time.Second {
		t.Errorf("got %+v, %v", groups, err)
	}
}
