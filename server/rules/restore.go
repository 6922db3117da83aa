package rules

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/cespare/xxhash/v2"
	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/strandline-db/strandline/shard/model"
)

// restore takes the time since when alerts hold from ALERTS_FOR_STATE, as it was before
// a restart, and lets the rules write their series from now on.
func (g *group) restore(ctx context.Context, now time.Time) {
	for _, r := range g.rules {
		if r.alerts == nil {
			continue
		}
		if err := r.alerts.restore(ctx, g.o, now); err != nil {
			g.log.Error("since when alerts hold was not restored", "alert", r.spec.Name, "err", err)
		}
		r.alerts.mu.Lock()
		r.alerts.mu.silent = false
		r.alerts.mu.Unlock()
	}
}

func (r *Alerts) restore(ctx context.Context, o *Options, now time.Time) error {
	ms, err := r.matchers()
	if err != nil {
		return err
	}
	q, err := o.Queryable.Querier(now.Add(-o.OutageTolerance).UnixMilli(), now.UnixMilli())
	if err != nil {
		return err
	}
	defer q.Close()
	last := map[string]lastSample{}
	set := q.Select(ctx, false, nil, ms...)
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		var l lastSample
		for it = s.Iterator(it); it.Next() == chunkenc.ValFloat; {
			l.t, l.v = it.At()
		}
		if err := it.Err(); err != nil {
			return err
		}
		lb := labels.NewBuilder(s.Labels())
		lb.Del(commonmodel.MetricNameLabel)
		last[labelKey(lb.Labels())] = l
	}
	if err := set.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, a := range r.mu.active {
		if l, ok := last[key]; ok && !value.IsStaleNaN(l.v) {
			a.ActiveAt = r.resumed(a, l, now, o.ForGracePeriod)
		}
	}
	return nil
}

// lastSample is the newest sample of a series of ALERTS_FOR_STATE.
type lastSample struct {
	t int64 // milliseconds
	v float64
}

// resumed returns since when the alert counts as holding: the time of the outage does
// not count, and who had little left to wait waits for the grace period, so that
// data may come in first.
func (r *Alerts) resumed(a *Alert, l lastSample, now time.Time, grace time.Duration) time.Time {
	down, since := time.Unix(l.t/1000, 0).UTC(), time.Unix(int64(l.v), 0).UTC()
	left := r.spec.For - down.Sub(since)
	switch {
	case left <= 0:
		return since
	case r.spec.For < grace:
		return a.ActiveAt
	case left < grace:
		return now.Add(grace - r.spec.For)
	}
	return since.Add(now.Sub(down))
}

// Store keeps small records durably; in a cluster, the same on every node.
type Store interface {
	// ChangeRecords makes all changes or, if a guard does not hold, none: model.ErrConflict.
	ChangeRecords(context.Context, *model.RecordChange) error
	// Records returns those whose key has the prefix, sorted by key.
	Records(prefix string) []model.Record
}

// prefixTold is before the key of each group's record of alerts that were told.
const prefixTold = "rules/told/"

// maxTold is how many alerts of a group are remembered; more are told again after a restart.
const maxTold = 500

// told is an alert as it is remembered across restarts.
type told struct {
	Rule        string        `json:"rule"`
	Labels      labels.Labels `json:"labels"`
	Annotations labels.Labels `json:"annotations"`
	FiredAt     time.Time     `json:"fired"`
	ResolvedAt  time.Time     `json:"resolved,omitzero"`
	LastSentAt  time.Time     `json:"sent"`
	ValidUntil  time.Time     `json:"until"`
}

func (g *group) toldKey() string {
	return fmt.Sprintf("%s%016x", prefixTold, xxhash.Sum64String(g.spec.Key()))
}

// remember stores which alerts have been told, if that has changed. A fault is
// logged: the worst that follows is that a receiver hears an alert twice.
func (g *group) remember(ctx context.Context) {
	if g.o.Store == nil {
		return
	}
	list := []told{}
	for _, r := range g.rules {
		if r.alerts == nil {
			continue
		}
		for _, a := range r.alerts.told() {
			if len(list) == maxTold {
				break
			}
			list = append(list, told{r.spec.Name, a.Labels, a.Annotations, a.FiredAt, a.ResolvedAt, a.LastSentAt, a.ValidUntil})
		}
	}
	b, err := json.Marshal(list)
	if err != nil || string(b) == string(g.toldBytes) || len(list) == 0 && g.toldBytes == nil {
		return
	}
	if len(b) > model.MaxRecordValue {
		g.log.Warn("alerts are too large to be remembered across a restart", "bytes", len(b))
		return
	}
	c := model.Change{Key: g.toldKey(), Value: b, Delete: len(list) == 0}
	if c.Delete {
		c.Value = nil
	}
	if err := g.o.Store.ChangeRecords(ctx, &model.RecordChange{Changes: []model.Change{c}}); err != nil {
		if ctx.Err() == nil {
			g.log.Warn("told alerts were not remembered", "err", err)
		}
		return
	}
	g.toldBytes = b
}

// told returns the alerts of which a receiver knows, those of an earlier run included.
func (r *Alerts) told() []Alert {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Alert
	for _, a := range r.mu.active {
		if a.State != Pending && !a.LastSentAt.IsZero() {
			list = append(list, *a)
		}
	}
	for _, p := range r.mu.prior {
		list = append(list, p)
	}
	sortAlerts(list)
	return list
}

// recall reads what an earlier run told, unless that is older than an outage may be.
func (g *group) recall() {
	for _, r := range g.rules {
		if r.alerts != nil {
			r.alerts.begin(g.earlier(r.spec.Name))
		}
	}
}

func (g *group) earlier(rule string) []Alert {
	if g.o.Store == nil {
		return nil
	}
	var list []Alert
	for _, rec := range g.o.Store.Records(g.toldKey()) {
		var all []told
		if err := json.Unmarshal(rec.Value, &all); err != nil {
			g.log.Error("the record of told alerts can't be read", "key", rec.Key, "err", err)
			continue
		}
		g.toldBytes = rec.Value
		for _, t := range all {
			if t.Rule == rule && g.o.Clock.Now().Sub(t.LastSentAt) <= g.o.OutageTolerance {
				list = append(list, Alert{State: Firing, Labels: t.Labels, Annotations: t.Annotations, ActiveAt: t.FiredAt, FiredAt: t.FiredAt,
					ResolvedAt: t.ResolvedAt, LastSentAt: t.LastSentAt, ValidUntil: t.ValidUntil})
			}
		}
	}
	return list
}

// begin readies the instances for a start: they write no series until restore, and
// know what was told before.
func (r *Alerts) begin(earlier []Alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.silent = true
	r.mu.prior = map[string]Alert{}
	for _, a := range earlier {
		if !a.ResolvedAt.IsZero() {
			a.State = Inactive
		}
		r.mu.prior[labelKey(a.Labels)] = a
	}
}
