package rules

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	upstream "github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/alertmanager"
	"github.com/strandline-db/strandline/wal/clock"
)

// upstreamDir is where the source of Prometheus lies, with its test data.
func upstreamDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// side is one of the two rule managers, with a storage of its own.
type side interface {
	append(ls labels.Labels, t int64, v float64, h *histogram.Histogram)
	commit()
	start(file string)
	reload(file string)
	evaluate(ts time.Time)
	restore(now time.Time)
	settle(ts time.Time)
	alerts() []string
	sent() []string
	samples() []string
}

// TestSameAsUpstream gives two rule managers, ours and upstream's on its own
// storage, the same data at the same times, with a restart and a reload on the way, and
// compares alerts and notifications after each step, and all samples at the end.
func TestSameAsUpstream(t *testing.T) {
	dir := upstreamDir(t)
	files, _ := filepath.Glob(filepath.Join(dir, "rules/fixtures/*.yaml"))
	files = slices.DeleteFunc(files, func(f string) bool { return strings.Contains(f, "invalid") })
	for _, f := range []string{"rules.yml", "at-modifier.yml", "negative-offset.yml", "rules_duplicates.yml"} {
		files = append(files, filepath.Join(dir, "cmd/promtool/testdata", f))
	}
	if len(files) < 15 {
		t.Fatalf("only %d files of upstream", len(files))
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { duel(t, f, 1) })
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("oracle.yml/", seed), func(t *testing.T) { duel(t, "testdata/oracle.yml", seed) })
	}
}

const oracleStep = 15 * time.Second

func duel(t *testing.T, file string, seed uint64) {
	sides := []side{newOurs(t), newTheirs(t)}
	w := newWorld(seed)
	ts := time.Unix(1_700_000_000, 0).UTC()
	for _, s := range sides {
		s.start(file)
	}
	begun := 0 // iterations since the last start
	for i := range 130 {
		ts = ts.Add(oracleStep)
		switch i {
		case 50, 100:
			ts = ts.Add(time.Duration(i) * time.Minute / 10) // an outage of 5 and of 10 minutes
			for _, s := range sides {
				s.start(file)
			}
			begun = 0
		case 80:
			for _, s := range sides {
				s.reload(file)
			}
		}
		w.step(sides, ts)
		eval := ts.Add(3 * time.Second)
		for _, s := range sides {
			s.evaluate(eval)
			if begun == 1 {
				s.restore(eval.Add(time.Second))
			}
			if begun >= 2 {
				s.settle(eval)
			}
		}
		begun++
		compare(t, fmt.Sprintf("step %d: alerts", i), sides[0].alerts(), sides[1].alerts())
		compare(t, fmt.Sprintf("step %d: notifications", i), sides[0].sent(), sides[1].sent())
	}
	compare(t, "samples", sides[0].samples(), sides[1].samples())
}

func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		g, w := "(none)", "(none)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("%s, %d and %d: entry %d:\nours   %s\ntheirs %s", what, len(got), len(want), i, g, w)
		}
	}
}

// world makes the data: counters that move, instances that go down, vanish and return.
type world struct {
	r        *rand.Rand
	counters map[string]float64
	down     [6]int // steps that an instance is down; negative: it is gone
}

func newWorld(seed uint64) *world {
	return &world{r: rand.New(rand.NewPCG(seed, 7)), counters: map[string]float64{}}
}

func (w *world) step(sides []side, ts time.Time) {
	add := func(v float64, h *histogram.Histogram, ls ...string) {
		for _, s := range sides {
			s.append(labels.FromStrings(ls...), ts.UnixMilli(), v, h)
		}
	}
	for i := range w.down {
		job, inst := fmt.Sprintf("job%d", i%3+1), fmt.Sprintf("i%d", i)
		switch {
		case w.down[i] > 0:
			w.down[i]--
		case w.down[i] < 0:
			if w.down[i]++; w.down[i] < 0 {
				continue
			}
		case w.r.IntN(12) == 0:
			w.down[i] = 1 + w.r.IntN(9)
		case w.r.IntN(25) == 0:
			w.down[i] = -1 - w.r.IntN(8)
			add(math.Float64frombits(0x7ff0000000000002), nil, "__name__", "up", "instance", inst, "job", job)
			continue
		}
		up := 1.0
		if w.down[i] > 0 {
			up = 0
		}
		add(up, nil, "__name__", "up", "instance", inst, "job", job)
		for _, m := range []string{"http_requests_total", "grpc_requests_total", "http_requests_failed_total", "requests", "test"} {
			w.counters[m+inst] += w.r.Float64() * 4000
			add(w.counters[m+inst], nil, "__name__", m, "instance", inst, "job", job, "cluster", fmt.Sprintf("cluster%d", i%2+1),
				"namespace", fmt.Sprintf("namespace%d", i/2+1))
		}
	}
	n := uint64(w.r.IntN(9)) + 2
	add(0, &histogram.Histogram{Count: n + 2, ZeroCount: 2, ZeroThreshold: 0.001, Sum: 18.5, Schema: 1,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 1}}, PositiveBuckets: []int64{int64(n)}}, "__name__", "lat", "job", "job1")
	for _, s := range sides {
		s.commit()
	}
}

// describe writes all that an alert is.
func describe(ls, notes labels.Labels, state string, v float64, times ...time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %x", ls, notes, state, math.Float64bits(v))
	for _, t := range times {
		fmt.Fprintf(&b, " %d", max(t.UnixMilli(), 0))
	}
	return b.String()
}

// dump lists every sample of a storage.
func dump(t *testing.T, q storage.Queryable) []string {
	t.Helper()
	qr, err := q.Querier(math.MinInt64/2, math.MaxInt64/2)
	if err != nil {
		t.Fatal(err)
	}
	defer qr.Close()
	var out []string
	set := qr.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	for set.Next() {
		it := set.At().Iterator(nil)
		for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
			if typ == chunkenc.ValFloat {
				ts, v := it.At()
				out = append(out, fmt.Sprintf("%s %d %x", set.At().Labels(), ts, math.Float64bits(v)))
			} else {
				ts, h := it.AtFloatHistogram(nil)
				if value.IsStaleNaN(h.Sum) { // upstream's storage makes a marker the kind of its series
					out = append(out, fmt.Sprintf("%s %d %x", set.At().Labels(), ts, value.StaleNaN))
					continue
				}
				h.CounterResetHint = histogram.UnknownCounterReset
				out = append(out, fmt.Sprintf("%s %d %s", set.At().Labels(), ts, h))
			}
		}
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	slices.Sort(out)
	return out
}

// ours is our manager, on the plain storage for tests.
type ours struct {
	t      *testing.T
	store  *querytest.Store
	engine *query.Engine
	app    storage.AppenderV2
	clock  *clock.Manual
	o      *Options
	groups []*group
	told   []string
}

func newOurs(t *testing.T) *ours {
	o := &ours{t: t, store: querytest.New(), clock: clock.NewManual(time.Unix(1_700_000_000, 0))}
	var err error
	if o.engine, err = query.New(o.store, &query.Options{}); err != nil {
		t.Fatal(err)
	}
	o.o = &Options{Query: EngineQuery(o.engine, "rules"), Queryable: o.engine.Queryable(), Appender: o.store, Notifier: o, Clock: o.clock,
		ExternalURL: &url.URL{Scheme: "http", Host: "here"}}
	o.o.EnsureDefaults()
	if err := o.o.Validate(); err != nil {
		t.Fatal(err)
	}
	o.app = (&querytest.Storage{W: o.store}).AppenderV2(context.Background())
	return o
}

func (o *ours) Send(list []alertmanager.Alert) {
	for _, a := range list {
		o.told = append(o.told, describe(a.Labels, a.Annotations, a.GeneratorURL, 0, a.StartsAt, a.EndsAt))
	}
}

func (o *ours) append(ls labels.Labels, t int64, v float64, h *histogram.Histogram) {
	if _, err := o.app.Append(0, ls, 0, t, v, h, nil, storage.AppendV2Options{}); err != nil {
		o.t.Fatal(err)
	}
}

func (o *ours) commit() {
	if err := o.app.Commit(); err != nil {
		o.t.Fatal(err)
	}
	o.app = (&querytest.Storage{W: o.store}).AppenderV2(context.Background())
}

func (o *ours) load(file string) []*group {
	specs, err := Load([]string{file}, o.engine.Parser(), Defaults{Interval: oracleStep})
	if err != nil {
		o.t.Fatal(err)
	}
	m, err := newMetrics(nil)
	if err != nil {
		o.t.Fatal(err)
	}
	var groups []*group
	for i := range specs {
		groups = append(groups, newGroup(&specs[i], o.o, m))
	}
	return groups
}

func (o *ours) start(file string) {
	o.groups = o.load(file)
	for _, g := range o.groups {
		g.recall()
	}
}

func (o *ours) reload(file string) {
	now := o.load(file)
	for i, g := range now {
		drop(len(g.rules), func(n int) { g.rules = g.rules[:n] })
		g.inherit(o.groups[i])
	}
	o.groups = now
}

// drop takes the last rule from a group that has several: a changed file.
func drop(n int, keep func(int)) {
	if n > 1 {
		keep(n - 1)
	}
}

func (o *ours) evaluate(ts time.Time) {
	for _, g := range o.groups {
		g.evaluate(context.Background(), ts)
	}
}

func (o *ours) restore(now time.Time) {
	for _, g := range o.groups {
		g.restore(context.Background(), now)
	}
}

func (o *ours) settle(ts time.Time) {
	for _, g := range o.groups {
		g.settle(ts)
	}
}

func (o *ours) alerts() (out []string) {
	for _, g := range o.groups {
		for _, r := range g.rules {
			out = append(out, fmt.Sprint(r.spec.Name, r.outcome().health))
			if r.alerts == nil {
				continue
			}
			for _, a := range r.alerts.All() {
				out = append(out, describe(a.Labels, a.Annotations, a.State.String(), a.Value, a.ActiveAt, a.FiredAt, a.ResolvedAt, a.LastSentAt, a.ValidUntil, a.KeepFiringSince))
			}
		}
	}
	slices.Sort(out)
	return out
}

func (o *ours) sent() []string {
	list := o.told
	o.told = nil
	slices.Sort(list)
	return list
}

func (o *ours) samples() []string { return dump(o.t, o.engine.Queryable()) }

// theirs is upstream's manager, on upstream's storage.
type theirs struct {
	t      *testing.T
	db     *teststorage.TestStorage
	opts   *upstream.ManagerOptions
	app    storage.AppenderV2
	groups []*upstream.Group
	told   []string
}

func newTheirs(t *testing.T) *theirs {
	th := &theirs{t: t, db: teststorage.New(t)}
	p := parser.NewParser(parser.Options{})
	ng := promql.NewEngine(promql.EngineOpts{MaxSamples: 50_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: p,
		EnableAtModifier: true, EnableNegativeOffset: true, NoStepSubqueryIntervalFn: func(int64) int64 { return 60_000 }})
	th.opts = &upstream.ManagerOptions{ExternalURL: &url.URL{Scheme: "http", Host: "here"}, QueryFunc: upstream.EngineQueryFunc(ng, th.db),
		Context: context.Background(), AppendableV2: th.db, Queryable: th.db, Logger: slog.New(slog.DiscardHandler), Parser: p,
		OutageTolerance: time.Hour, ForGracePeriod: 10 * time.Minute, ResendDelay: time.Minute}
	th.opts.NotifyFunc = func(_ context.Context, expr string, list ...*upstream.Alert) {
		for _, a := range list {
			end := a.ValidUntil
			if !a.ResolvedAt.IsZero() {
				end = a.ResolvedAt
			}
			link := "http://here/graph?g0.expr=" + url.QueryEscape(expr) + "&g0.tab=1"
			th.told = append(th.told, describe(a.Labels, a.Annotations, link, 0, a.FiredAt, end))
		}
	}
	th.app = th.db.AppenderV2(context.Background())
	return th
}

func (th *theirs) append(ls labels.Labels, t int64, v float64, h *histogram.Histogram) {
	if _, err := th.app.Append(0, ls, 0, t, v, h, nil, storage.AppendV2Options{}); err != nil {
		th.t.Fatal(err)
	}
}

func (th *theirs) commit() {
	if err := th.app.Commit(); err != nil {
		th.t.Fatal(err)
	}
	th.app = th.db.AppenderV2(context.Background())
}

func (th *theirs) load(file string, keep func(*upstream.Group) *upstream.Group) []*upstream.Group {
	m := upstream.NewManager(th.opts)
	byKey, errs := m.LoadGroups(oracleStep, labels.EmptyLabels(), "http://here", nil, false, file)
	if len(errs) > 0 {
		th.t.Fatal(errs)
	}
	var groups []*upstream.Group
	for _, g := range byKey {
		groups = append(groups, keep(g))
	}
	// In the order of the file, as ours.
	specs, err := Load([]string{file}, th.opts.Parser, Defaults{Interval: oracleStep})
	if err != nil {
		th.t.Fatal(err)
	}
	at := func(g *upstream.Group) int {
		return slices.IndexFunc(specs, func(s GroupSpec) bool { return s.Name == g.Name() })
	}
	slices.SortFunc(groups, func(a, b *upstream.Group) int { return cmp.Compare(at(a), at(b)) })
	return groups
}

func (th *theirs) start(file string) {
	th.groups = th.load(file, func(g *upstream.Group) *upstream.Group { return g })
}

func (th *theirs) reload(file string) {
	now := th.load(file, func(g *upstream.Group) *upstream.Group {
		list := g.Rules()
		drop(len(list), func(n int) { list = list[:n] })
		for _, r := range list {
			if a, ok := r.(*upstream.AlertingRule); ok {
				a.SetRestored(true)
			}
		}
		return upstream.NewGroup(upstream.GroupOptions{Name: g.Name(), File: g.File(), Interval: g.Interval(), Limit: g.Limit(), Rules: list,
			Opts: th.opts, QueryOffset: ptr(g.QueryOffset())})
	})
	for i, g := range now {
		g.CopyState(th.groups[i])
	}
	th.groups = now
}

func ptr[T any](v T) *T { return &v }

func (th *theirs) evaluate(ts time.Time) {
	for _, g := range th.groups {
		upstream.DefaultEvalIterationFunc(context.Background(), g, ts)
	}
}

func (th *theirs) restore(now time.Time) {
	for _, g := range th.groups {
		g.RestoreForState(now)
	}
}

func (*theirs) settle(time.Time) {}

func (th *theirs) alerts() (out []string) {
	for _, g := range th.groups {
		for _, r := range g.Rules() {
			health := upstream.RuleHealth("ok")
			if r.LastError() != nil {
				health = "err"
			}
			out = append(out, fmt.Sprint(r.Name(), health))
			a, ok := r.(*upstream.AlertingRule)
			if !ok {
				continue
			}
			a.ForEachActiveAlert(func(a *upstream.Alert) {
				out = append(out, describe(a.Labels, a.Annotations, a.State.String(), a.Value, a.ActiveAt, a.FiredAt, a.ResolvedAt, a.LastSentAt, a.ValidUntil, a.KeepFiringSince))
			})
		}
	}
	slices.Sort(out)
	return out
}

func (th *theirs) sent() []string {
	list := th.told
	th.told = nil
	slices.Sort(list)
	return list
}

func (th *theirs) samples() []string { return dump(th.t, th.db) }
