package rules

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/strutil"

	"github.com/strandline-db/strandline/server/alertmanager"
)

// group is a group of rules at work. run owns it; the methods that look may be called meanwhile.
type group struct {
	spec  *GroupSpec
	o     *Options
	m     *metrics
	rules []*rule
	log   *slog.Logger
	// stale are series of rules that a reload took away, not yet marked.
	stale     []labels.Labels
	toldBytes []byte // the record of told alerts as it was last stored
	mu        struct {
		sync.Mutex
		took, ruleTime time.Duration
		at             time.Time // when the last iteration began; zero: never
	}
}

func newGroup(s *GroupSpec, o *Options, m *metrics) *group {
	g := &group{spec: s, o: o, m: m, log: o.Logger.With("file", s.File, "group", s.Name)}
	env := &Environment{Query: o.Query, ExternalURL: o.ExternalURL, Logger: g.log}
	for i := range s.Rules {
		g.rules = append(g.rules, newRule(&s.Rules[i], env))
	}
	return g
}

func (g *group) timing() (took time.Duration, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.took, g.mu.at
}

// evaluate runs all rules once, one after another, each seeing what those before it wrote.
func (g *group) evaluate(ctx context.Context, ts time.Time) {
	start := g.o.Clock.Now()
	written := map[string]struct{}{}
	samples := 0
	seen := g.o.Sync(ctx, nil)
	for i, r := range g.rules {
		if ctx.Err() != nil {
			return
		}
		at := g.o.Clock.Now()
		n, err := 0, seen
		if err == nil {
			n, seen, err = g.evaluateRule(ctx, r, ts, written)
		}
		o := outcome{health: HealthGood, at: at, took: g.o.Clock.Now().Sub(at)}
		samples += n
		g.m.rule(g.spec.Key(), o.took, err)
		if err != nil {
			o.health, o.err = HealthBad, err
			if ctx.Err() == nil {
				g.log.Warn("a rule failed", "name", r.spec.Name, "index", i, "err", err)
			}
		}
		r.setOutcome(o)
	}
	g.markGone(ctx, ts, written)
	took := g.o.Clock.Now().Sub(start)
	g.m.iteration(g.spec.Key(), start, took, samples)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.took, g.mu.at = took, start
}

// evaluateRule returns how many samples the rule gave and, as seen, whether the next
// rule can be sure to see them.
func (g *group) evaluateRule(ctx context.Context, r *rule, ts time.Time, written map[string]struct{}) (n int, seen, err error) {
	t := ts.Add(-g.spec.Offset)
	var v promql.Vector
	if r.alerts == nil {
		v, err = r.record(ctx, g.o.Query, t, g.spec.Limit)
	} else if v, err = r.alerts.Evaluate(ctx, ts, g.spec.Offset, g.spec.Limit); err == nil {
		g.tell(r, ts)
	}
	if err != nil {
		return 0, nil, err
	}
	applied, err := r.store(ctx, g.o.Appender, v, t.UnixMilli(), written)
	if len(applied) > 0 {
		seen = g.o.Sync(ctx, applied)
	}
	return len(v), seen, err
}

// tell hands the alerts that are due to the notifier, which takes them at once.
func (g *group) tell(r *rule, ts time.Time) {
	due := r.alerts.Due(ts, g.o.ResendDelay, g.spec.Interval)
	if len(due) == 0 {
		return
	}
	link := ""
	if g.o.ExternalURL != nil {
		link = g.o.ExternalURL.String()
	}
	link += strutil.TableLinkForExpression(r.spec.Query)
	out := make([]alertmanager.Alert, 0, len(due))
	for _, a := range due {
		n := alertmanager.Alert{Labels: a.Labels, Annotations: a.Annotations, StartsAt: a.FiredAt, EndsAt: a.ValidUntil, GeneratorURL: link}
		if !a.ResolvedAt.IsZero() {
			n.EndsAt = a.ResolvedAt
		}
		out = append(out, n)
	}
	g.o.Notifier.Send(out)
}

// markGone writes stale markers for series of rules that are no more.
func (g *group) markGone(ctx context.Context, ts time.Time, written map[string]struct{}) {
	var gone []labels.Labels
	for _, ls := range g.stale {
		if _, alive := written[labelKey(ls)]; !alive {
			gone = append(gone, ls)
		}
	}
	if err := mark(ctx, g.o.Appender, gone, ts.Add(-g.spec.Offset).UnixMilli()); err != nil {
		g.log.Warn("stale markers of former rules were not stored", "err", err)
		return
	}
	g.stale = nil
}

// inherit takes over what the same group knew before a reload. Rules are the same if
// name and labels are; of several alike, the first is the first.
func (g *group) inherit(old *group) {
	g.mu.took, g.mu.at = old.timing()
	g.toldBytes = old.toldBytes
	left := map[string][]*rule{}
	for _, r := range old.rules {
		id := r.spec.identity()
		left[id] = append(left[id], r)
	}
	for _, r := range g.rules {
		id := r.spec.identity()
		if len(left[id]) == 0 {
			continue
		}
		was := left[id][0]
		left[id] = left[id][1:]
		r.wrote = was.wrote
		if r.alerts != nil && was.alerts != nil {
			r.alerts.Put(was.alerts.All())
		}
	}
	g.stale = old.stale
	for _, rest := range left {
		for _, r := range rest {
			g.stale = append(g.stale, r.series()...)
		}
	}
}

// series returns what the rule wrote last.
func (r *rule) series() []labels.Labels {
	list := make([]labels.Labels, 0, len(r.wrote))
	for _, ls := range r.wrote {
		list = append(list, ls)
	}
	return list
}

// run evaluates at each slot until ctx ends. If restore is set, the state before a
// restart is looked up after the second iteration, when recording rules
// that alerts stand on have written again.
func (g *group) run(ctx context.Context, restore bool) {
	if restore {
		g.recall()
	}
	next := Slot(g.spec.File, g.spec.Name, g.spec.Interval, g.o.Clock.Now()).Add(g.spec.Interval)
	for n := 0; g.wait(ctx, next); n++ {
		g.m.scheduled(g.spec.Key(), 1)
		g.evaluate(ctx, next)
		if restore && n == 1 {
			g.restore(ctx, g.o.Clock.Now())
		}
		if restore && n >= 2 {
			g.settle(next)
		}
		g.remember(ctx)
		next = next.Add(g.spec.Interval)
		if late := g.o.Clock.Now().Sub(next); late >= g.spec.Interval {
			missed := late / g.spec.Interval
			g.m.missed(g.spec.Key(), int(missed))
			next = next.Add(missed * g.spec.Interval)
		}
	}
}

// wait reports whether t has come, and not the end of ctx.
func (g *group) wait(ctx context.Context, t time.Time) bool {
	ch, release := g.o.Clock.After(t.Sub(g.o.Clock.Now()))
	defer release()
	select {
	case <-ctx.Done():
		return false
	case <-ch:
		return ctx.Err() == nil
	}
}

func (g *group) settle(ts time.Time) {
	for _, r := range g.rules {
		if r.alerts != nil {
			r.alerts.settle(ts)
		}
	}
}
