package alerts

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/strandline-db/strandline/server/rules"
	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// Store keeps small records durably; in a cluster, the same on every node. Its methods
// are called concurrently.
type Store interface {
	webhook.Store
	// WatchRecords tells of changes to records whose keys begin with prefix: after one the
	// channel has a message. stop ends it.
	WatchRecords(prefix string) (changed <-chan struct{}, stop func())
}

// Options of a Service. Nil and zero values mean the defaults named here.
type Options struct {
	Store  Store           // required
	Query  rules.QueryFunc // required
	Parser parser.Parser   // required
	// Sync waits until this node sees all that was written before. Nil: it always does.
	Sync       func(context.Context, model.Applied) error
	Leadership rules.Leadership // nil: always this node
	// MaxSubscriptions bounds their number. Default 1000.
	MaxSubscriptions int
	MaxParallel      int                   // evaluations at a time; default 4
	Webhook          webhook.Options       // Store and Targets are filled in
	Clock            clock.Clock           // nil: the machine's
	Logger, Audit    *slog.Logger          // nil: discard
	Registerer       prometheus.Registerer // nil: no metrics
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	if o.Sync == nil {
		o.Sync = func(context.Context, model.Applied) error { return nil }
	}
	if o.MaxSubscriptions == 0 {
		o.MaxSubscriptions = 1000
	}
	if o.MaxParallel == 0 {
		o.MaxParallel = 4
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Audit == nil {
		o.Audit = slog.New(slog.DiscardHandler)
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	if o.Store == nil || o.Query == nil || o.Parser == nil {
		errs = append(errs, fmt.Errorf("%w: Store, Query and Parser are required", ErrBadOptions))
	}
	if o.MaxSubscriptions < 0 || o.MaxParallel < 0 {
		errs = append(errs, fmt.Errorf("%w: no number may be negative", ErrBadOptions))
	}
	return errors.Join(errs...)
}

// Service keeps and evaluates subscriptions.
type Service struct {
	o       Options
	hooks   *webhook.Dispatcher
	metrics *metrics
	slots   chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
	mu      struct {
		sync.Mutex
		running map[string]*running // by id
	}
}

type running struct {
	*runner
	stop func() // ends it and waits
}

// New starts a Service, which goes on from what the store holds.
func New(opts *Options) (*Service, error) {
	s := &Service{}
	if opts != nil {
		s.o = *opts
	}
	s.o.EnsureDefaults()
	if err := s.o.Validate(); err != nil {
		return nil, err
	}
	w := s.o.Webhook
	w.Store, w.Targets = s.o.Store, s
	var err error
	if s.hooks, err = webhook.New(&w); err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(s.o.Registerer); err != nil {
		return nil, err
	}
	s.slots = make(chan struct{}, s.o.MaxParallel)
	s.mu.running = map[string]*running{}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.done.Go(func() { s.control(ctx) })
	return s, nil
}

// Close ends evaluations and deliveries, and waits. What is queued stays.
func (s *Service) Close() error {
	s.cancel()
	s.done.Wait()
	return nil
}

func (s *Service) leads() bool { return s.o.Leadership == nil || s.o.Leadership.Leads() }

// control starts and stops what leading is about.
func (s *Service) control(ctx context.Context) {
	changed, stop := s.o.Store.WatchRecords(prefixSubscription)
	defer stop()
	// Another node's last messages may come to be known only after it has handed over.
	queued, stopQueued := s.o.Store.WatchRecords(webhook.Prefix)
	defer stopQueued()
	var lead <-chan struct{}
	if s.o.Leadership != nil {
		lead = s.o.Leadership.Changed()
	}
	for {
		leads := s.leads()
		if leads {
			s.hooks.Start()
		}
		s.arrange(ctx, leads)
		if !leads {
			s.hooks.Stop()
		}
		select {
		case <-ctx.Done():
			s.arrange(ctx, false)
			s.hooks.Stop()
			return
		case <-changed:
		case <-queued:
		case <-lead:
		}
	}
}

// arrange makes the subscriptions at work those that are stored, or none.
func (s *Service) arrange(ctx context.Context, leads bool) {
	stored := map[string]model.Record{}
	if leads {
		for _, rec := range s.o.Store.Records(prefixSubscription) {
			stored[strings.TrimPrefix(rec.Key, prefixSubscription)] = rec
		}
	}
	s.mu.Lock()
	old := s.mu.running
	s.mu.Unlock()
	now := make(map[string]*running, len(stored))
	for id, r := range old {
		if rec, ok := stored[id]; ok && rec.Rev == r.rev {
			now[id] = r
		} else {
			r.stop()
		}
	}
	for id, rec := range stored {
		if now[id] == nil {
			if r := s.begin(ctx, &rec); r != nil {
				now[id] = r
			}
		}
	}
	s.mu.Lock()
	s.mu.running = now
	s.mu.Unlock()
	s.metrics.subscriptions.Set(float64(len(now)))
}

// begin starts a stored subscription; nil: it can't be read.
func (s *Service) begin(ctx context.Context, rec *model.Record) *running {
	sub, err := decode(rec)
	var r *runner
	if err == nil {
		r, err = newRunner(s, sub, rec.Rev)
	}
	if err != nil {
		s.o.Logger.Error("an alert subscription can't be used", "key", rec.Key, "err", err)
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	return &running{r, func() { cancel(); <-done }}
}

func decode(rec *model.Record) (*Subscription, error) {
	sub := &Subscription{}
	if err := json.Unmarshal(rec.Value, sub); err != nil {
		return nil, errors.New("its record is not JSON of a subscription") // the text may hold a secret
	}
	return sub, nil
}

// one returns the record with exactly this key.
func one(st webhook.Store, key string) (model.Record, bool) {
	for _, rec := range st.Records(key) {
		if rec.Key == key {
			return rec, true
		}
	}
	return model.Record{}, false
}

// Target implements webhook.Targets.
func (s *Service) Target(id string) (webhook.Target, bool) {
	rec, ok := one(s.o.Store, prefixSubscription+id)
	if !ok {
		return webhook.Target{}, false
	}
	sub, err := decode(&rec)
	if err != nil {
		return webhook.Target{}, false
	}
	return webhook.Target{URL: sub.URL, Secret: sub.Secret}, true
}

// create stores a subscription.
func (s *Service) create(ctx context.Context, body []byte) (*Subscription, error) {
	sub, err := Parse(body, s.o.Parser, s.hooks.Policy())
	if err != nil {
		return nil, err
	}
	if len(s.o.Store.Records(prefixSubscription)) >= s.o.MaxSubscriptions {
		return nil, ErrTooMany
	}
	var id [8]byte
	rand.Read(id[:])
	sub.ID, sub.Created = hex.EncodeToString(id[:]), s.o.Clock.Now().UTC().Truncate(time.Millisecond)
	v, err := json.Marshal(sub)
	if err != nil {
		return nil, err
	}
	key := prefixSubscription + sub.ID
	err = s.o.Store.ChangeRecords(ctx, &model.RecordChange{Guards: []model.Guard{{Key: key}}, Changes: []model.Change{{Key: key, Value: v}}})
	if errors.Is(err, model.ErrConflict) {
		// An id is never made twice: it is our own change, whose answer was lost.
		err = nil
	}
	return sub, err
}

// remove deletes a subscription, its state and its queue.
func (s *Service) remove(ctx context.Context, id string) error {
	rec, ok := one(s.o.Store, prefixSubscription+id)
	if !ok {
		return ErrNotFound
	}
	c := &model.RecordChange{Changes: []model.Change{{Key: rec.Key, Delete: true}, {Key: prefixState + id, Delete: true}}}
	for _, m := range webhook.Queued(s.o.Store, id) {
		c.Changes = append(c.Changes, model.Change{Key: m.Key, Delete: true})
	}
	return s.o.Store.ChangeRecords(ctx, c)
}

// runnerOf returns the subscription at work here; nil: it is not.
func (s *Service) runnerOf(id string) *runner {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.mu.running[id]; r != nil {
		return r.runner
	}
	return nil
}
