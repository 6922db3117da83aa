package slo

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Names of what the rules record.
const (
	recordObjective = "slo:objective:ratio"
	recordBudget    = "slo:error_budget:ratio"
	recordErrors    = "slo:sli_error:ratio_rate" // and the window
	recordBurn      = "slo:burn_rate:ratio_rate" // and the window
	recordLeft      = "slo:error_budget_left:ratio"
	alertName       = "SLOErrorBudgetBurn"
	labelName       = "slo"
	labelSeverity   = "severity"
)

// Severities of the alerts.
const (
	Page   = "page"
	Ticket = "ticket"
)

// The windows up to 6 h are recorded often; the longer ones, which read more and change
// less, seldom, but within the usual lookback of 5 min.
const (
	shortInterval = 30 * time.Second
	longInterval  = 150 * time.Second
	longFrom      = 24 * time.Hour
)

// condition is one line of the workbook's table 5-8: it holds when both windows burn
// faster than the factor. The short one ends it soon after the burning has ended.
type condition struct {
	severity    string
	long, short time.Duration
	spent       float64 // part of the budget that is gone when the long window has burnt so
}

// conditions are those of the workbook. With a window of 30 days they are burn rates of
// 14.4, 6, 3 and 1; with another one the same part of the budget is spent.
func conditions() []condition {
	return []condition{
		{Page, time.Hour, 5 * time.Minute, 0.02},
		{Page, 6 * time.Hour, 30 * time.Minute, 0.05},
		{Ticket, 24 * time.Hour, 2 * time.Hour, 0.1},
		{Ticket, 72 * time.Hour, 6 * time.Hour, 0.1},
	}
}

// factor is the burn rate from which the condition holds.
func (c *condition) factor(window time.Duration) float64 {
	return math.Round(c.spent*float64(window)/float64(c.long)*1e9) / 1e9
}

// windows are those of the conditions and the objective's own, ascending.
func (o *Objective) windows() []time.Duration {
	return []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour, o.Window}
}

// Groups returns the rules of the objectives, two groups each. The objectives must be valid.
func Groups(objectives []Objective, p parser.Parser) (*rulefmt.RuleGroups, error) {
	out := &rulefmt.RuleGroups{}
	for i := range objectives {
		groups, err := objectives[i].groups(p)
		if err != nil {
			return nil, fmt.Errorf("slo %s: %w", objectives[i].Name, err)
		}
		out.Groups = append(out.Groups, groups...)
	}
	return out, nil
}

func (o *Objective) groups(p parser.Parser) ([]rulefmt.RuleGroup, error) {
	ls := o.allLabels()
	record := func(name, expr string) rulefmt.Rule { return rulefmt.Rule{Record: name, Expr: expr, Labels: ls} }
	budget := number(o.budget())
	var short, long []rulefmt.Rule
	short = append(short, record(recordObjective, "vector("+number(1-o.budget())+")"), record(recordBudget, "vector("+budget+")"))
	for _, w := range o.windows() {
		expr, err := o.errorRatio(p, w)
		if err != nil {
			return nil, err
		}
		to := &short
		if w >= longFrom {
			to = &long
		}
		*to = append(*to, record(recordErrors+windowName(w), expr), record(recordBurn+windowName(w), o.recorded(recordErrors, w)+" / "+budget))
	}
	long = append(long, record(recordLeft, "1 - "+o.recorded(recordBurn, o.Window)))
	for _, severity := range []string{Page, Ticket} {
		short = append(short, o.alert(severity, ls))
	}
	name := "slo: " + o.Name
	return []rulefmt.RuleGroup{
		{Name: name + ": long windows", Interval: prommodel.Duration(longInterval), Rules: long},
		{Name: name, Interval: prommodel.Duration(shortInterval), Rules: short},
	}, nil
}

// allLabels are those of all series and alerts of the objective.
func (o *Objective) allLabels() map[string]string {
	ls := map[string]string{}
	maps.Copy(ls, o.Labels)
	ls[labelName] = o.Name
	return ls
}

// recorded selects what the rules record for one window: by all labels, as there may still be
// series from before these were changed.
func (o *Objective) recorded(name string, w time.Duration) string {
	ls := o.allLabels()
	s := &parser.VectorSelector{Name: name + windowName(w)}
	for _, k := range slices.Sorted(maps.Keys(ls)) {
		s.LabelMatchers = append(s.LabelMatchers, &labels.Matcher{Type: labels.MatchEqual, Name: k, Value: ls[k]})
	}
	return s.String()
}

// alert fires when any of its conditions holds.
func (o *Objective) alert(severity string, ls map[string]string) rulefmt.Rule {
	expr := ""
	for _, c := range conditions() {
		if c.severity != severity {
			continue
		}
		if expr != "" {
			expr += " or "
		}
		f := number(c.factor(o.Window))
		expr += fmt.Sprintf("(%s > %s and %s > %s)", o.recorded(recordBurn, c.long), f, o.recorded(recordBurn, c.short), f)
	}
	all := maps.Clone(ls)
	all[labelSeverity] = severity
	return rulefmt.Rule{Alert: alertName, Expr: expr, Labels: all, Annotations: map[string]string{
		"summary": "The error budget of {{ $labels.slo }} is being spent {{ $value | printf \"%.1f\" }} times as fast as it lasts",
		"description": fmt.Sprintf("The objective is %s %% good events over %s. At a burn rate of 1 its budget lasts just as long; see /api/v1/slo for the rates of all windows.",
			number(o.Target), windowName(o.Window)),
	}}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
