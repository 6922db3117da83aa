package slo

import (
	"context"
	"fmt"
	"time"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/query"
)

// Status says how an objective stands. A nil number means that nothing is known: no
// events, or no data.
type Status struct {
	Name        string              `json:"name"`
	Target      float64             `json:"target"` // percent
	Window      string              `json:"window"`
	Labels      map[string]string   `json:"labels"`
	State       string              `json:"state"` // ok, ticket, page, no_data or error
	Error       string              `json:"error,omitempty"`
	Ratio       *float64            `json:"ratio"`       // of good events over the window, 0 to 1
	ErrorRatio  *float64            `json:"error_ratio"` // of bad ones
	ErrorBudget Budget              `json:"error_budget"`
	BurnRates   map[string]*float64 `json:"burn_rates"` // by window
	Alerts      []AlertStatus       `json:"alerts"`
}

// Budget is the part of events that may be bad, and how much of it is left: 1 is all, below
// 0 the objective is missed.
type Budget struct {
	Total float64  `json:"total"`
	Left  *float64 `json:"left"`
}

// AlertStatus is one of the two alerts.
type AlertStatus struct {
	Severity   string            `json:"severity"`
	State      string            `json:"state"` // firing or inactive
	Conditions []ConditionStatus `json:"conditions"`
}

// ConditionStatus is a pair of windows; it holds when both burn faster than the factor.
type ConditionStatus struct {
	Long   string  `json:"long_window"`
	Short  string  `json:"short_window"`
	Factor float64 `json:"factor"`
	Holds  bool    `json:"holds"`
}

// ratios are the error ratios that were recorded, by the labels of the series, as text,
// and the window.
type ratios map[string]map[string][]float64

// of returns those of an objective, by window. Series from before its labels were changed
// are not among them.
func (r ratios) of(o *Objective) map[string][]float64 {
	return r[labels.FromMap(o.allLabels()).String()]
}

// recordedRatios reads what the rules have recorded.
func recordedRatios(ctx context.Context, q *query.Engine, now time.Time) (ratios, error) {
	res, err := q.Instant(ctx, `{__name__=~"`+recordErrors+`.+",`+labelName+`!=""}`, now, query.QueryOptions{Client: "slo"})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	v, err := res.Vector()
	if err != nil {
		return nil, err
	}
	out := ratios{}
	for i := range v {
		window := v[i].Metric.Get(prommodel.MetricNameLabel)[len(recordErrors):]
		ls := v[i].Metric.MatchLabels(false, prommodel.MetricNameLabel).String()
		if out[ls] == nil {
			out[ls] = map[string][]float64{}
		}
		out[ls][window] = append(out[ls][window], v[i].F)
	}
	return out, nil
}

// status tells how an objective stands; what is not in recorded is computed.
func (a *API) status(ctx context.Context, o *Objective, recorded map[string][]float64, now time.Time) Status {
	s := Status{Name: o.Name, Target: o.Target, Window: windowName(o.Window), Labels: o.Labels, ErrorBudget: Budget{Total: o.budget()}, BurnRates: map[string]*float64{}}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	for _, w := range o.windows() {
		list, ok := recorded[windowName(w)]
		if !ok {
			var err error
			if list, err = a.compute(ctx, o, w, now); err != nil {
				s.State, s.Error = "error", err.Error()
			}
		}
		s.take(o, w, list)
	}
	s.judge(o)
	return s
}

// compute evaluates the rule of one window.
func (a *API) compute(ctx context.Context, o *Objective, w time.Duration, now time.Time) ([]float64, error) {
	expr, err := o.errorRatio(a.q.Parser(), w)
	if err != nil {
		return nil, err
	}
	res, err := a.q.Instant(ctx, expr, now, query.QueryOptions{Client: "slo"})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	v, ok := res.Value.(promql.Vector)
	if !ok {
		return nil, errType
	}
	var out []float64
	for i := range v {
		out = append(out, v[i].F)
	}
	return out, nil
}

// take notes the error ratio of one window, if there is exactly one.
func (s *Status) take(o *Objective, w time.Duration, list []float64) {
	name := windowName(w)
	s.BurnRates[name] = nil
	if len(list) > 1 {
		s.State, s.Error = "error", fmt.Sprintf("its expressions give %d series over %s, want one: aggregate with sum", len(list), name)
	}
	if len(list) != 1 {
		return
	}
	burn := list[0] / o.budget()
	s.BurnRates[name] = &burn
	if w == o.Window {
		bad, good, left := list[0], 1-list[0], 1-burn
		s.Ratio, s.ErrorRatio, s.ErrorBudget.Left = &good, &bad, &left
	}
}

// judge works out the alerts from the burn rates.
func (s *Status) judge(o *Objective) {
	state := "ok"
	if s.Ratio == nil {
		state = "no_data"
	}
	for _, severity := range []string{Ticket, Page} {
		a := AlertStatus{Severity: severity, State: "inactive"}
		for _, c := range conditions() {
			if c.severity != severity {
				continue
			}
			f := c.factor(o.Window)
			long, short := s.BurnRates[windowName(c.long)], s.BurnRates[windowName(c.short)]
			holds := long != nil && short != nil && *long > f && *short > f
			if holds {
				a.State, state = "firing", severity
			}
			a.Conditions = append(a.Conditions, ConditionStatus{windowName(c.long), windowName(c.short), f, holds})
		}
		s.Alerts = append(s.Alerts, a)
	}
	if s.State == "" {
		s.State = state
	}
}
