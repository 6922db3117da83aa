package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// The metrics that alerting rules write, and the label that tells the state.
const (
	alertsMetric   = "ALERTS"
	forStateMetric = "ALERTS_FOR_STATE"
	stateLabel     = "alertstate"
)

// keepResolved is how long a resolved alert is kept, and told again, in case the
// notification or the receiver's memory of it was lost.
const keepResolved = 15 * time.Minute

// State is how far an alert has come.
type State uint8

// The states, each more urgent than those before.
const (
	Unknown  State = iota // not evaluated yet
	Inactive              // resolved
	Pending               // holds, for less than the rule's "for"
	Firing
)

// String returns Prometheus' name of the state.
func (s State) String() string {
	return [...]string{"unknown", "inactive", "pending", "firing"}[s]
}

// Alert is one instance of an alerting rule: a label set for which its expression held.
type Alert struct {
	State               State
	Labels, Annotations labels.Labels
	Value               float64 // at the last evaluation at which the expression held

	ActiveAt        time.Time // since when it holds
	FiredAt         time.Time // zero: has not fired
	ResolvedAt      time.Time // zero: still active
	KeepFiringSince time.Time // since when keep_firing_for alone keeps it firing; zero: it does not
	LastSentAt      time.Time
	ValidUntil      time.Time // when a receiver that hears nothing may take it as resolved
}

// due reports whether the alert must be told at ts.
func (a *Alert) due(ts time.Time, resend time.Duration) bool {
	if a.State == Pending {
		return false
	}
	return a.ResolvedAt.After(a.LastSentAt) || a.LastSentAt.Add(resend).Before(ts)
}

// Alerts holds the instances of one alerting rule from one evaluation to the next.
type Alerts struct {
	spec   *Spec
	expand expander
	mu     struct {
		sync.Mutex
		active map[string]*Alert // by label bytes; resolved ones too
		// silent withholds the series until the state before a restart has been looked up.
		silent bool
		// prior are alerts that an earlier run told and that have not come up yet.
		prior map[string]Alert
	}
}

// NewAlerts returns the instances of an alerting rule: none yet.
func NewAlerts(s *Spec, env *Environment) *Alerts {
	a := &Alerts{spec: s, expand: expander{name: s.Name, env: env}}
	a.mu.active = map[string]*Alert{}
	return a
}

func labelKey(ls labels.Labels) string { return string(ls.Bytes(nil)) }

// Evaluate asks the expression at ts, less offset, and moves each instance on. It
// returns the samples of ALERTS and ALERTS_FOR_STATE. More than limit instances are
// an error, and forget all; 0: no limit.
func (r *Alerts) Evaluate(ctx context.Context, ts time.Time, offset time.Duration, limit int) (promql.Vector, error) {
	res, err := r.expand.env.Query(ctx, r.spec.Query, ts.Add(-offset))
	if err != nil {
		return nil, err
	}
	now, err := r.instances(ctx, res, ts)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, a := range now {
		if old := r.mu.active[key]; old != nil && old.State != Inactive {
			old.Value, old.Annotations = a.Value, a.Annotations
		} else {
			r.mu.active[key] = a
		}
	}
	var out promql.Vector
	alive := 0
	for key, a := range r.mu.active {
		if !r.step(key, a, ts, now[key] != nil) {
			continue
		}
		alive++
		if !r.mu.silent {
			t := ts.Add(-offset).UnixMilli()
			out = append(out, r.stateSample(a, t), r.forSample(a, t))
		}
	}
	if limit > 0 && alive > limit {
		r.mu.active = map[string]*Alert{}
		return nil, fmt.Errorf("%w of %d with %d alerts", ErrLimit, limit, alive)
	}
	return out, nil
}

// instances turns a result into new, pending alerts by label bytes.
func (r *Alerts) instances(ctx context.Context, res promql.Vector, ts time.Time) (map[string]*Alert, error) {
	now := make(map[string]*Alert, len(res))
	lb := labels.NewBuilder(labels.EmptyLabels())
	for _, s := range res {
		text := r.expand.at(ctx, s, ts)
		lb.Reset(s.Metric)
		lb.Del(commonmodel.MetricNameLabel)
		r.spec.Labels.Range(func(l labels.Label) { lb.Set(l.Name, text(l.Value)) })
		lb.Set(labels.AlertName, r.spec.Name)
		notes := labels.NewScratchBuilder(r.spec.Annotations.Len())
		r.spec.Annotations.Range(func(l labels.Label) { notes.Add(l.Name, text(l.Value)) })
		a := &Alert{State: Pending, Labels: lb.Labels(), Annotations: notes.Labels(), Value: s.F, ActiveAt: ts}
		key := labelKey(a.Labels)
		if now[key] != nil {
			return nil, ErrDuplicateAlert
		}
		now[key] = a
	}
	return now, nil
}

// step moves one alert on, given whether its expression holds at ts, and reports
// whether it is active.
func (r *Alerts) step(key string, a *Alert, ts time.Time, holds bool) bool {
	switch {
	case holds:
		a.KeepFiringSince = time.Time{}
	case a.State == Firing && r.spec.KeepFiringFor > 0 && r.stillKept(a, ts):
	default:
		if a.State == Pending || !a.ResolvedAt.IsZero() && ts.Sub(a.ResolvedAt) > keepResolved {
			delete(r.mu.active, key)
		}
		if a.State != Inactive {
			a.State, a.ResolvedAt = Inactive, ts
		}
		return false
	}
	ripe := ts.Sub(a.ActiveAt) >= r.spec.For
	switch {
	case a.State == Pending && ripe:
		a.State, a.FiredAt = Firing, ts
		if p, ok := r.mu.prior[key]; ok {
			a.FiredAt, a.LastSentAt, a.ValidUntil = p.FiredAt, p.LastSentAt, p.ValidUntil
			delete(r.mu.prior, key)
		}
	case a.State == Firing && !ripe: // the rule's "for" has become longer
		a.State = Pending
		a.FiredAt, a.LastSentAt, a.KeepFiringSince = time.Time{}, time.Time{}, time.Time{}
	}
	return true
}

func (r *Alerts) stillKept(a *Alert, ts time.Time) bool {
	if a.KeepFiringSince.IsZero() {
		a.KeepFiringSince = ts
	}
	return ts.Sub(a.KeepFiringSince) < r.spec.KeepFiringFor
}

// sample builds one of the two series of an alert; nil: of the rule.
func (r *Alerts) sample(metric string, a *Alert, t int64, v float64) promql.Sample {
	lb := labels.NewBuilder(r.spec.Labels)
	if a != nil {
		a.Labels.Range(func(l labels.Label) { lb.Set(l.Name, l.Value) })
	}
	lb.Set(commonmodel.MetricNameLabel, metric)
	lb.Set(labels.AlertName, r.spec.Name)
	if a != nil && metric == alertsMetric {
		lb.Set(stateLabel, a.State.String())
	}
	return promql.Sample{Metric: lb.Labels(), T: t, F: v}
}

func (r *Alerts) stateSample(a *Alert, t int64) promql.Sample {
	return r.sample(alertsMetric, a, t, 1)
}

func (r *Alerts) forSample(a *Alert, t int64) promql.Sample {
	return r.sample(forStateMetric, a, t, float64(a.ActiveAt.Unix()))
}

// Due returns the alerts to be told at ts and notes that they were. A receiver may
// take one as resolved when it hears nothing for four times the longer of resend and interval.
func (r *Alerts) Due(ts time.Time, resend, interval time.Duration) []Alert {
	r.mu.Lock()
	defer r.mu.Unlock()
	var due []Alert
	for _, a := range r.mu.active {
		if a.due(ts, resend) {
			a.LastSentAt, a.ValidUntil = ts, ts.Add(4*max(interval, resend))
			due = append(due, *a)
		}
	}
	sortAlerts(due)
	return due
}

// All returns the instances, resolved ones too, sorted by labels.
func (r *Alerts) All() []Alert {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Alert, 0, len(r.mu.active))
	for _, a := range r.mu.active {
		list = append(list, *a)
	}
	sortAlerts(list)
	return list
}

// Active returns the instances that pend or fire, sorted by labels.
func (r *Alerts) Active() []Alert {
	return slices.DeleteFunc(r.All(), func(a Alert) bool { return !a.ResolvedAt.IsZero() })
}

// Put takes over instances from an earlier run; those with the same labels are replaced.
func (r *Alerts) Put(list []Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range list {
		r.mu.active[labelKey(a.Labels)] = &a
	}
}

// Replace makes the instances those of the list.
func (r *Alerts) Replace(list []Alert) {
	r.mu.Lock()
	r.mu.active = make(map[string]*Alert, len(list))
	r.mu.Unlock()
	r.Put(list)
}

// state returns the most urgent state of the instances.
func (r *Alerts) state() State {
	s := Inactive
	for _, a := range r.Active() {
		s = max(s, a.State)
	}
	return s
}

func sortAlerts(list []Alert) {
	slices.SortFunc(list, func(a, b Alert) int { return labels.Compare(a.Labels, b.Labels) })
}

// settle ends the time after a restart: alerts that an earlier run told and that
// don't hold any more are resolved at ts.
func (r *Alerts) settle(ts time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, p := range r.mu.prior {
		if r.mu.active[key] != nil {
			continue // pends: it may take up where it was
		}
		if p.ResolvedAt.IsZero() {
			p.State, p.ResolvedAt = Inactive, ts
		}
		r.mu.active[key] = &p
		delete(r.mu.prior, key)
	}
}

// matchers select the ALERTS_FOR_STATE series of the rule, leaving out labels that
// differ by instance.
func (r *Alerts) matchers() ([]*labels.Matcher, error) {
	var ms []*labels.Matcher
	var err error
	r.sample(forStateMetric, nil, 0, 0).Metric.Range(func(l labels.Label) {
		if err != nil || strings.Contains(l.Value, "{{") {
			return
		}
		var m *labels.Matcher
		m, err = labels.NewMatcher(labels.MatchEqual, l.Name, l.Value)
		ms = append(ms, m)
	})
	return ms, err
}
