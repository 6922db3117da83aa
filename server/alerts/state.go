package alerts

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/server/rules"
	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/shard/model"
)

// Keys of the records: a prefix and the subscription's id.
const (
	prefixSubscription = "alerts/sub/"
	prefixState        = "alerts/state/"
)

// MaxAlerts is how many alerts a subscription may have at a time; more are an error of
// its evaluation, which changes nothing.
const MaxAlerts = 500

// maxQueued is how many messages of a subscription wait; the oldest go for new ones.
const maxQueued = 200

// number is a float in JSON, as text, which may be NaN or infinite.
type number float64

// MarshalJSON implements json.Marshaler.
func (n number) MarshalJSON() ([]byte, error) {
	return json.Marshal(strconv.FormatFloat(float64(n), 'f', -1, 64))
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(s, 64)
	*n = number(v)
	return err
}

// state is what must not be forgotten of a subscription: the record's JSON.
type state struct {
	Sequence uint64  `json:"sequence"` // of the last message
	Dropped  uint64  `json:"dropped,omitempty"`
	Alerts   []alert `json:"alerts"`
}

// alert is one series for which the condition holds.
type alert struct {
	State    string        `json:"state"` // pending or firing
	Labels   labels.Labels `json:"labels"`
	Value    number        `json:"value"` // when it was last stored
	ActiveAt time.Time     `json:"activeAt"`
	FiredAt  time.Time     `json:"firedAt,omitzero"`
}

// unpack returns the alerts for evaluation to go on from.
func (s *state) unpack() []rules.Alert {
	list := make([]rules.Alert, 0, len(s.Alerts))
	for _, a := range s.Alerts {
		x := rules.Alert{State: rules.Pending, Labels: a.Labels, Value: float64(a.Value), ActiveAt: a.ActiveAt, FiredAt: a.FiredAt}
		if a.State == rules.Firing.String() {
			x.State = rules.Firing
		}
		list = append(list, x)
	}
	return list
}

// pack keeps those that pend or fire.
func (s *state) pack(list []rules.Alert) {
	s.Alerts = []alert{}
	for _, a := range list {
		if a.State == rules.Pending || a.State == rules.Firing {
			s.Alerts = append(s.Alerts, alert{a.State.String(), a.Labels, number(a.Value), a.ActiveAt, a.FiredAt})
		}
	}
}

// event is a transition of an alert, as a webhook tells it.
type event struct {
	State    string        `json:"state"` // firing or resolved
	Labels   labels.Labels `json:"labels"`
	Value    number        `json:"value"`
	ActiveAt time.Time     `json:"activeAt"`
	StartsAt time.Time     `json:"startsAt"`
	EndsAt   time.Time     `json:"endsAt,omitzero"`
}

// transitions compares the alerts before and after an evaluation. changed says
// that something must be stored, even if nobody is told.
func transitions(before, after []rules.Alert) (events []event, changed bool) {
	was := map[string]rules.State{}
	for _, a := range before {
		was[a.Labels.String()] = a.State
	}
	for _, a := range after {
		key := a.Labels.String()
		old := was[key]
		delete(was, key)
		if a.State == old {
			continue
		}
		changed = true
		e := event{State: "firing", Labels: a.Labels, Value: number(a.Value), ActiveAt: a.ActiveAt, StartsAt: a.FiredAt}
		switch {
		case a.State == rules.Firing:
			events = append(events, e)
		case a.State == rules.Inactive && old == rules.Firing:
			e.State, e.EndsAt = "resolved", a.ResolvedAt
			events = append(events, e)
		}
	}
	return events, changed || len(was) > 0
}

// body is what a webhook posts. See webhook/WEBHOOK.md.
type body struct {
	Version      int       `json:"version"`
	Subscription string    `json:"subscription"`
	Name         string    `json:"name"`
	Sequence     uint64    `json:"sequence"`
	Condition    string    `json:"condition"`
	Threshold    float64   `json:"threshold"`
	Comparison   string    `json:"comparison"`
	At           time.Time `json:"evaluatedAt"`
	Alerts       []event   `json:"alerts"`
}

// maxEventBytes is about how large the events of one message may be together.
const maxEventBytes = webhook.MaxBody / 2

// messages packs events into as many bodies as they need, and returns the changes that
// queue them.
func (s *state) messages(sub *Subscription, condition string, at time.Time, events []event) ([]model.Change, error) {
	var changes []model.Change
	for len(events) > 0 {
		n, size := 0, 0
		for n < len(events) && (n == 0 || size < maxEventBytes) {
			size += 160 + 2*len(events[n].Labels.String())
			n++
		}
		s.Sequence++
		b, err := json.Marshal(body{1, sub.ID, sub.title(), s.Sequence, condition, sub.Threshold, sub.Comparison, at, events[:n]})
		if err != nil {
			return nil, err
		}
		m := webhook.Message{Subscription: sub.ID, Sequence: s.Sequence, Created: at, Body: b}
		c, err := m.Put()
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
		events = events[n:]
	}
	return changes, nil
}
