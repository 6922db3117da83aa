package webhook

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// Dispatcher delivers messages between Start and Stop.
type Dispatcher struct {
	o        Options
	client   *client
	circuits circuits
	metrics  *metrics
	slots    chan struct{}
	mu       struct {
		sync.Mutex
		ctx   context.Context // nil: stopped
		stop  context.CancelFunc
		lanes map[string]*lane // by subscription
		hosts map[string]*host // by origin
	}
	lanes sync.WaitGroup
}

// lane delivers one subscription's messages, one after another. It ends when there are none.
type lane struct {
	d       *Dispatcher
	sub     string
	woken   bool // guarded by the dispatcher's mutex: there may be more than it has seen
	attempt int  // failures of the message at the head
	head    string
}

// New returns a Dispatcher that delivers nothing until Start.
func New(o *Options) (*Dispatcher, error) {
	d := &Dispatcher{}
	if o != nil {
		d.o = *o
	}
	d.o.EnsureDefaults()
	if err := d.o.Validate(); err != nil {
		return nil, err
	}
	var err error
	if d.metrics, err = newMetrics(d.o.Registerer); err != nil {
		return nil, err
	}
	d.client = newClient(&d.o)
	d.circuits.o = &d.o
	d.circuits.mu.by = map[string]*circuit{}
	d.slots = make(chan struct{}, d.o.MaxParallel)
	d.mu.lanes, d.mu.hosts = map[string]*lane{}, map[string]*host{}
	return d, nil
}

// Policy returns which targets are permitted.
func (d *Dispatcher) Policy() *Policy { return &d.o.Policy }

// Circuits returns the targets that were met since the process started.
func (d *Dispatcher) Circuits() []Circuit { return d.circuits.list() }

// Start begins with what the store holds. In a cluster one node at a time shall deliver.
func (d *Dispatcher) Start() {
	d.mu.Lock()
	if d.mu.ctx == nil {
		d.mu.ctx, d.mu.stop = context.WithCancel(context.Background())
	}
	d.mu.Unlock()
	last := ""
	for _, r := range d.o.Store.Records(Prefix) {
		sub, _, _ := strings.Cut(strings.TrimPrefix(r.Key, Prefix), "/")
		if sub != last {
			d.Wake(sub)
		}
		last = sub
	}
}

// Stop ends the attempts that run, and waits. Their messages stay.
func (d *Dispatcher) Stop() {
	d.mu.Lock()
	if d.mu.ctx != nil {
		d.mu.stop()
		d.mu.ctx, d.mu.stop = nil, nil
	}
	d.mu.Unlock()
	d.lanes.Wait()
}

// Wake tells that the subscription has new messages.
func (d *Dispatcher) Wake(subscription string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.ctx == nil {
		return
	}
	if l := d.mu.lanes[subscription]; l != nil {
		l.woken = true
		return
	}
	l := &lane{d: d, sub: subscription}
	d.mu.lanes[subscription] = l
	ctx := d.mu.ctx
	d.lanes.Go(func() { l.run(ctx) })
}

// host bounds the attempts that run at a time at one host, so that those which hang there
// don't take the turns of others. It lives as long as somebody has to do with it.
type host struct {
	slots   chan struct{}
	failing chan struct{} // some of the slots, for targets whose last attempt has failed
	users   int           // guarded by the dispatcher's mutex
}

func (d *Dispatcher) enter(origin string) *host {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.mu.hosts[origin]
	if h == nil {
		h = &host{slots: make(chan struct{}, d.o.MaxPerHost), failing: make(chan struct{}, max(d.o.MaxPerHost/2, 1))}
		d.mu.hosts[origin] = h
	}
	h.users++
	return h
}

func (d *Dispatcher) exit(origin string, h *host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(d.mu.hosts, origin)
	}
}

// leave ends the lane unless it was woken since it last looked.
func (d *Dispatcher) leave(l *lane, stopped bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.woken && !stopped {
		l.woken = false
		return false
	}
	if d.mu.lanes[l.sub] == l {
		delete(d.mu.lanes, l.sub)
	}
	return true
}

func (l *lane) run(ctx context.Context) {
	for {
		queue := Queued(l.d.o.Store, l.sub)
		if len(queue) == 0 || ctx.Err() != nil {
			if l.d.leave(l, ctx.Err() != nil) {
				return
			}
			continue
		}
		l.wait(ctx, l.deliver(ctx, &queue[0]))
	}
}

// wait lets d pass, unless the dispatcher stops.
func (l *lane) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	ch, release := l.d.o.Clock.After(d)
	defer release()
	select {
	case <-ctx.Done():
	case <-ch:
	}
}

// deliver makes one attempt at the oldest message, and returns the pause until the next look.
func (l *lane) deliver(ctx context.Context, r *model.Record) time.Duration {
	d := l.d
	if l.head != r.Key {
		l.head, l.attempt = r.Key, 0
	}
	log := d.o.Logger.With("subscription", l.sub)
	target, known := d.o.Targets.Target(l.sub)
	m, err := messageOf(r)
	switch {
	case !known:
		return l.drop(ctx, r, "orphaned")
	case err != nil:
		log.Error("a queued webhook message can't be read", "err", err)
		return l.drop(ctx, r, "unreadable")
	case d.o.Clock.Now().Sub(m.Created) > d.o.MaxAge:
		log.Warn("a webhook message was given up", "delivery", m.ID(), "age", d.o.MaxAge)
		return l.drop(ctx, r, "expired")
	}
	u, err := url.Parse(target.URL)
	if err != nil {
		return l.drop(ctx, r, "unreadable")
	}
	c := d.circuits.of(&target, Origin(u), l.sub)
	err = l.attemptAt(ctx, c, &target, &m)
	switch {
	case err == nil:
		d.metrics.delivered.Inc()
		return l.drop(ctx, r, "")
	case errors.Is(err, errStopped):
		return 0
	case errors.Is(err, errOpen):
		return c.reopens(l.attempt)
	}
	l.attempt++
	d.metrics.failed.Inc()
	pause := l.backoff(err)
	log.Warn("a webhook delivery failed", "delivery", m.ID(), "target", c.target, "attempt", l.attempt, "again_in", pause, "err", err)
	return pause
}

// attemptAt takes a turn, of the target's host and of all, and posts.
func (l *lane) attemptAt(ctx context.Context, c *circuit, t *Target, m *Message) error {
	host := l.d.enter(c.target)
	defer l.d.exit(c.target, host)
	turns := []chan struct{}{host.slots, l.d.slots}
	if c.failing() { // it leaves room for the paths that work
		turns = slices.Insert(turns, 0, host.failing)
	}
	for _, slots := range turns {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return errStopped
		}
		defer func() { <-slots }()
	}
	return c.try(ctx, func() error { return l.d.client.post(ctx, t, m.ID(), m.Body) })
}

// backoff is the pause after the last failure: Backoff doubled for each one before, at
// most MaxBackoff, less a random half; and no less than a target asked for.
func (l *lane) backoff(err error) time.Duration {
	o := &l.d.o
	pause := o.Backoff
	for range l.attempt - 1 {
		if pause *= 2; pause >= o.MaxBackoff {
			pause = o.MaxBackoff
			break
		}
	}
	pause -= time.Duration(o.Random() * float64(pause) / 2)
	if e, ok := errors.AsType[*statusError](err); ok {
		pause = max(pause, min(e.retryAfter, o.MaxBackoff))
	}
	return pause
}

// drop removes a message, delivered or, for a reason, given up. As long as that fails it is
// tried again, and the message not sent again.
func (l *lane) drop(ctx context.Context, r *model.Record, reason string) time.Duration {
	if reason != "" {
		l.d.metrics.dropped.WithLabelValues(reason).Inc()
	}
	change := &model.RecordChange{Changes: []model.Change{{Key: r.Key, Delete: true}}}
	for pause := l.d.o.Backoff; ctx.Err() == nil; pause = min(2*pause, l.d.o.MaxBackoff) {
		err := l.d.o.Store.ChangeRecords(ctx, change)
		if err == nil {
			break
		}
		l.d.o.Logger.Warn("a webhook message was not removed from the queue", "subscription", l.sub, "err", err)
		l.wait(ctx, pause)
	}
	return 0
}
