package rules

import (
	"maps"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Spec is a rule as it was written. It is immutable.
type Spec struct {
	Name               string // of the alert or the recorded metric
	Alerting           bool   // false: a recording rule
	Query              string // normalised PromQL
	For, KeepFiringFor time.Duration
	// Labels and Annotations may hold templates in alerting rules.
	Labels, Annotations labels.Labels
}

// identity is what makes a rule the same one after a reload.
func (s *Spec) identity() string { return s.Name + s.Labels.String() }

func (s *Spec) equal(o *Spec) bool {
	return s.Name == o.Name && s.Alerting == o.Alerting && s.Query == o.Query && s.For == o.For &&
		s.KeepFiringFor == o.KeepFiringFor && labels.Equal(s.Labels, o.Labels) && labels.Equal(s.Annotations, o.Annotations)
}

// GroupSpec is a group of rules as it was written. It is immutable.
type GroupSpec struct {
	Name, File string
	Interval   time.Duration
	Offset     time.Duration // how far behind the clock it is evaluated
	Limit      int           // of series or alerts of a rule; 0: none
	Rules      []Spec
}

// Key identifies a group.
func (g *GroupSpec) Key() string { return g.File + ";" + g.Name }

func (g *GroupSpec) equal(o *GroupSpec) bool {
	if g.Key() != o.Key() || g.Interval != o.Interval || g.Offset != o.Offset || g.Limit != o.Limit || len(g.Rules) != len(o.Rules) {
		return false
	}
	for i := range g.Rules {
		if !g.Rules[i].equal(&o.Rules[i]) {
			return false
		}
	}
	return true
}

// Slot returns the last of a group's evaluation times at or before now. They lie an interval
// apart, at an offset that follows from the group's name, so that groups spread over time
// and every run, on whatever node, evaluates at the same times.
func Slot(file, name string, interval time.Duration, now time.Time) time.Time {
	h := labels.FromStrings("name", name, "file", file).Hash()
	offset := int64(h % uint64(interval))
	t := now.UnixNano() - offset
	return time.Unix(0, t-t%int64(interval)+offset).UTC()
}

// merge returns the labels of both; the second's go before the first's.
func merge(group, rule map[string]string) labels.Labels {
	all := maps.Clone(group)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, rule)
	return labels.FromMap(all)
}
