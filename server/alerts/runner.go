package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/strandline-db/strandline/server/rules"
	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/shard/model"
)

// runner evaluates one subscription while this node leads.
type runner struct {
	s         *Service
	sub       *Subscription
	rev       uint64 // of the subscription's record
	condition string
	alerts    *rules.Alerts
	log       *slog.Logger

	state     state         // as stored
	stateRev  uint64        // of its record; 0: there is none yet
	committed []rules.Alert // what state holds
	mu        struct {
		sync.Mutex
		at  time.Time // of the last evaluation
		err error
	}
}

func newRunner(s *Service, sub *Subscription, rev uint64) (*runner, error) {
	cond, err := sub.condition(s.o.Parser)
	if err != nil {
		return nil, err
	}
	r := &runner{s: s, sub: sub, rev: rev, condition: cond, log: s.o.Logger.With("subscription", sub.ID)}
	r.alerts = rules.NewAlerts(&rules.Spec{Name: sub.title(), Alerting: true, Query: cond, For: time.Duration(sub.For)},
		&rules.Environment{Query: s.o.Query, Logger: r.log})
	return r, r.load()
}

// load reads the state as it is stored.
func (r *runner) load() error {
	r.state, r.stateRev = state{}, 0
	if rec, ok := one(r.s.o.Store, prefixState+r.sub.ID); ok {
		if err := json.Unmarshal(rec.Value, &r.state); err != nil {
			return err
		}
		r.stateRev = rec.Rev
	}
	r.committed = r.state.unpack()
	r.alerts.Replace(r.committed)
	return nil
}

// run evaluates at each of the subscription's times until ctx ends.
func (r *runner) run(ctx context.Context) {
	c := r.s.o.Clock
	interval := time.Duration(r.sub.Interval)
	next := rules.Slot("subscription", r.sub.ID, interval, c.Now()).Add(interval)
	for {
		ch, release := c.After(next.Sub(c.Now()))
		select {
		case <-ctx.Done():
			release()
			return
		case <-ch:
		}
		if !r.turn(ctx, next) {
			return
		}
		next = next.Add(interval)
		if late := c.Now().Sub(next); late >= interval {
			next = next.Add(late / interval * interval)
		}
	}
}

// turn waits for one of the few evaluations at a time, and evaluates.
func (r *runner) turn(ctx context.Context, ts time.Time) bool {
	select {
	case r.s.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-r.s.slots }()
	err := r.evaluate(ctx, ts)
	if ctx.Err() != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.at, r.mu.err = ts, err
	return true
}

// evaluate moves the alerts on and stores what has changed. If that fails, all is as it was
// before, and the next evaluation finds the change again.
func (r *runner) evaluate(ctx context.Context, ts time.Time) error {
	r.s.metrics.evaluations.Inc()
	err := r.s.o.Sync(ctx, nil)
	if err == nil {
		_, err = r.alerts.Evaluate(ctx, ts, 0, MaxAlerts)
	}
	if err == nil {
		err = r.commit(ctx, ts)
	}
	if err != nil && ctx.Err() == nil {
		r.s.metrics.failures.Inc()
		r.log.Warn("a subscribed alert was not evaluated", "err", err)
	}
	if err != nil {
		r.alerts.Replace(r.committed)
	}
	return err
}

// commit stores the alerts and queues what a receiver is to be told, in one change.
func (r *runner) commit(ctx context.Context, ts time.Time) error {
	now := r.alerts.All()
	events, changed := transitions(r.committed, now)
	if !changed {
		return nil
	}
	next := state{Sequence: r.state.Sequence, Dropped: r.state.Dropped}
	next.pack(now)
	c := &model.RecordChange{Guards: []model.Guard{{Key: prefixSubscription + r.sub.ID, Rev: r.rev}, {Key: prefixState + r.sub.ID, Rev: r.stateRev}}}
	messages, err := next.messages(r.sub, r.condition, ts, events)
	if err != nil {
		return err
	}
	c.Changes = append(messages, r.overflow(&next, len(messages))...)
	v, err := json.Marshal(&next)
	if err != nil {
		return err
	}
	if len(v) > model.MaxRecordValue {
		return errTooBig
	}
	c.Changes = append(c.Changes, model.Change{Key: prefixState + r.sub.ID, Value: v})
	err = r.s.o.Store.ChangeRecords(ctx, c)
	if errors.Is(err, model.ErrConflict) {
		// Deleted meanwhile, taken over, or our own first attempt has come through.
		err = nil
	}
	if err != nil {
		return err
	}
	r.s.hooks.Wake(r.sub.ID)
	return r.load()
}

// overflow returns the changes that make room for n messages.
func (r *runner) overflow(next *state, n int) (changes []model.Change) {
	queue := webhook.Queued(r.s.o.Store, r.sub.ID)
	for i := range max(0, min(len(queue), len(queue)+n-maxQueued)) {
		changes = append(changes, model.Change{Key: queue[i].Key, Delete: true})
		next.Dropped++
		r.s.metrics.dropped.Inc()
	}
	return changes
}

// last returns when the subscription was last evaluated here, and how that went.
func (r *runner) last() (time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.at, r.mu.err
}
