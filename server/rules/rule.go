package rules

import (
	"context"
	"fmt"
	"sync"
	"time"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// Health says how a rule's last evaluation went.
type Health string

// The healths, in Prometheus' words.
const (
	HealthUnknown Health = "unknown"
	HealthGood    Health = "ok"
	HealthBad     Health = "err"
)

// rule is one rule of a running group. Its group evaluates it, anyone may look.
type rule struct {
	spec   *Spec
	alerts *Alerts                  // nil: a recording rule
	wrote  map[string]labels.Labels // by the last evaluation; the group's alone
	mu     struct {
		sync.Mutex
		last outcome
	}
}

// outcome is what is known of a rule's last evaluation.
type outcome struct {
	health Health
	err    error
	took   time.Duration
	at     time.Time // zero: never
}

func newRule(s *Spec, env *Environment) *rule {
	r := &rule{spec: s, wrote: map[string]labels.Labels{}}
	r.mu.last.health = HealthUnknown
	if s.Alerting {
		r.alerts = NewAlerts(s, env)
	}
	return r
}

func (r *rule) outcome() outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.last
}

func (r *rule) setOutcome(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.last = o
}

func (r *rule) state() State {
	if r.outcome().at.IsZero() {
		return Unknown
	}
	return r.alerts.state()
}

// record evaluates a recording rule at t.
func (r *rule) record(ctx context.Context, query QueryFunc, t time.Time, limit int) (promql.Vector, error) {
	v, err := query(ctx, r.spec.Query, t)
	if err != nil {
		return nil, err
	}
	lb := labels.NewBuilder(labels.EmptyLabels())
	for i := range v {
		lb.Reset(v[i].Metric)
		lb.Set(commonmodel.MetricNameLabel, r.spec.Name)
		r.spec.Labels.Range(func(l labels.Label) { lb.Set(l.Name, l.Value) })
		v[i].Metric, v[i].T = lb.Labels(), t.UnixMilli()
	}
	if v.ContainsSameLabelset() {
		return nil, ErrDuplicate
	}
	if limit > 0 && len(v) > limit {
		return nil, fmt.Errorf("%w of %d with %d series", ErrLimit, limit, len(v))
	}
	return v, nil
}
