package live

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// evaluation evaluates one query for all who subscribe to it. It is a task: what is
// not guarded belongs to its run.
type evaluation struct {
	hub   *Hub
	key   evalKey
	plan  *plan
	task  taskState
	fills filler
	held  atomic.Int64 // samples of backfills that are not taken yet
	known atomic.Int64 // in samples mode: all that was applied by then, Unix ms, has been told
	how   atomic.Pointer[string]
	reads atomic.Bool // the next run reads the storage, which may take its time

	pass   *sampler // in samples mode, in place of all that follows
	src    source
	next   int64 // the first step not yet evaluated
	pace   pace
	late   span  // what late samples may have changed
	owed   span  // of that, what is being corrected: it goes before late
	newest *Step // in its newest revision
	wakes  []*Subscription
	events []entry // scratch of publish
	over   bool    // it has ended for want of subscribers

	ready chan struct{} // closed once samples mode has its feed, or has failed to get it

	mu struct {
		sync.RWMutex
		ring    ring
		recent  recents
		series  registry
		last    int64 // the newest step evaluated, or given up
		subs    []*Subscription
		asking  []*Subscription // that wait for backfill
		filled  []*Step         // backfilled steps within the horizon, for run to remember
		pieces  pieces          // of backfills
		late    span            // what has changed since a backfill that is being computed began
		owed    span            // the same of those in filled
		filling atomic.Int32    // subscriptions in backfill
		idle    time.Time       // since when nobody is subscribed
		ended   error
		openErr error // why samples mode has no feed
	}
}

// errHeavy: what is due reads the storage, and the run is not on a worker for that.
var errHeavy = errors.New("live: the storage must be read by a heavy run")

// errDeaf: the feed may lack what was applied a while ago. Steps wait until it does not.
var errDeaf = fmt.Errorf("%w: the leader of a shard is not heard here; what waits for it comes once it is, and sooner from another node", model.ErrUnavailable)

// source computes the steps of an evaluation. It belongs to the evaluation's run. In a light
// one it does not read the storage: where it would have to, it says errHeavy, and is cold.
type source interface {
	// refresh takes in what was applied since the last call and says which times
	// before it may have changed. Steps from since on will be asked for.
	refresh(ctx context.Context, since int64) (span, error)
	// steps evaluates the query from from to to, both inclusive.
	steps(ctx context.Context, from, to int64) ([]*Step, error)
	// cold tells that the next run will read the storage.
	cold() bool
	close()
}

// span is a range of times, both inclusive; empty if from is behind to.
type span struct{ from, to int64 }

var (
	none   = span{1, 0}
	always = span{math.MinInt64 / 2, math.MaxInt64 / 2}
)

func (s span) empty() bool { return s.from > s.to }

func (s *span) add(from, to int64) {
	if s.empty() {
		*s = span{from, to}
		return
	}
	s.from, s.to = min(s.from, from), max(s.to, to)
}

// samplesRing is how many times the ring is longer in samples mode.
const samplesRing = 16

func newEvaluation(h *Hub, key evalKey, p *plan) *evaluation {
	e := &evaluation{hub: h, key: key, plan: p}
	e.fills.e = e
	e.pace.chunk = catchUp
	e.late, e.owed, e.mu.late, e.mu.owed = none, none, none, none
	e.ready = make(chan struct{})
	size := h.opts.Ring
	if key.samples {
		size *= samplesRing // of a few values each, and many at once
	}
	e.mu.ring = newRing(size, h.opts.RingValues)
	e.mu.series = newRegistry()
	e.start(h.opts.Clock.Now().UnixMilli())
	return e
}

// start makes the next step the first one.
func (e *evaluation) start(now int64) {
	e.reads.Store(true)
	if e.key.samples {
		e.pass = &sampler{e: e}
		e.setMode(ModeSamples)
		e.known.Store(now)
		return
	}
	close(e.ready)
	if c := e.plan.chain; c != nil {
		e.src = newIncremental(e, c)
		e.setMode(ModeIncremental)
	} else {
		e.src = newStepped(e)
		e.setMode(ModeStepped)
	}
	e.mu.last = floor(now-e.hub.opts.delay(), e.key.step)
	e.next = e.mu.last + e.key.step
}

func (e *evaluation) mode() string { return *e.how.Load() }

func (e *evaluation) setMode(mode string) { e.how.Store(&mode) }

// subscribe adds a subscription; the caller holds the hub's lock.
func (e *evaluation) subscribe(req *Request) (*Subscription, error) {
	now := e.hub.opts.Clock.Now().UnixMilli()
	s := &Subscription{e: e, wake: req.Wake, after: req.After, jumped: true, max: e.hub.opts.MaxSeries}
	if req.MaxSeries > 0 {
		s.max = min(s.max, req.MaxSeries)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if limit := e.hub.opts.MaxSubscribers; len(e.mu.subs) >= limit {
		return nil, full("subscribers of a live query", limit, "live-max-connections")
	}
	e.placeLocked(s, req, now)
	s.at = len(e.mu.subs)
	e.mu.subs = append(e.mu.subs, s)
	e.mu.idle = time.Time{}
	if s.at == 0 {
		e.hub.sched.kick(e) // it may be new
	}
	return s, nil
}

// ahead is by how much another node's clock may be ahead for its revisions to be surpassed.
const ahead = time.Minute

// placeLocked puts the cursor where the request wants it.
func (e *evaluation) placeLocked(s *Subscription, req *Request, now int64) {
	s.seq = e.mu.ring.head
	from, again := e.from(s, req, now)
	if e.key.samples {
		s.since = min(from, now)
		if from < maxTime {
			s.fill = &fill{next: again, seam: maxTime, fix: none}
			e.mu.filling.Add(1)
		}
		return
	}
	last, step := e.mu.last, e.key.step
	if s.since = req.After; s.since == 0 {
		s.since = min(from, last+step) - step
	}
	from = min(from, last+step)
	s.start, s.caught = min(from, again), s.seq
	f := &fill{next: from, seam: from - step, fix: none}
	if from <= last {
		var there bool
		if s.seq, there = e.mu.ring.first(from); !there {
			s.seq, f.seam = s.caught, last
		}
	}
	if again < from {
		s.stamp = e.mu.recent.lend(max(now, min(req.Seen, now+ahead.Milliseconds())))
		f.next, f.again = again, from-step
	}
	if f.next <= f.seam {
		s.fill = f
		e.mu.filling.Add(1)
	}
}

func (e *evaluation) unsubscribe(s *Subscription, why error) {
	if !s.ended.CompareAndSwap(nil, &why) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.mu.subs) - 1
	e.mu.subs[s.at] = e.mu.subs[n]
	e.mu.subs[s.at].at = s.at
	e.mu.subs[n] = nil
	e.mu.subs = e.mu.subs[:n]
	if s.fill != nil {
		s.fill.backlog.release()
		s.fill = nil
		e.mu.filling.Add(-1)
	}
	if n == 0 {
		e.mu.subs = nil
		e.mu.idle = e.hub.opts.Clock.Now()
		e.hub.sched.kick(e) // so that it sees when to end
	}
}

func (e *evaluation) subscribers() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return len(e.mu.subs)
}

// end ends all subscriptions; nothing runs any more.
func (e *evaluation) end(why error) {
	e.mu.Lock()
	subs := e.mu.subs
	e.mu.subs, e.mu.ended = nil, why
	e.mu.Unlock()
	for _, s := range subs {
		if s.ended.CompareAndSwap(nil, &why) && s.wake != nil {
			s.wake()
		}
	}
	e.release()
}

// release gives back what the evaluation holds of the storage.
func (e *evaluation) release() {
	if e.pass != nil {
		e.opened(ErrClosed)
		e.pass.close()
		return
	}
	e.src.close()
}

// opened lets go those who wait for the feed, and says whether it is there.
func (e *evaluation) opened(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.openErr = err
	select {
	case <-e.ready:
	default:
		close(e.ready)
	}
}

func (e *evaluation) failure() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.mu.openErr
}

// lingered tells whether nobody has been subscribed for long enough.
func (e *evaluation) lingered(now time.Time) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return !e.mu.idle.IsZero() && now.Sub(e.mu.idle) >= e.hub.opts.Linger
}

// look is how often an evaluation looks for late samples and for its end.
const look = time.Second

func (e *evaluation) state() *taskState { return &e.task }

func (e *evaluation) class() class {
	if e.mode() == ModeStepped || e.reads.Load() {
		return heavy
	}
	return light
}

// light tells that the run must not read the storage.
func (e *evaluation) light() bool { return e.task.as == light }

// cold tells that the next run reads the storage.
func (e *evaluation) cold() bool {
	if e.pass == nil {
		return e.src.cold()
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.pass.feed == nil || e.pass.owed > 0 || len(e.mu.asking) > 0
}

// run implements task.
func (e *evaluation) run(ctx context.Context, now time.Time) time.Time {
	next := e.turn(ctx, now)
	cold := e.cold()
	e.reads.Store(cold)
	if cold && e.light() && !e.over {
		return now // as a heavy one
	}
	return next
}

// turn does what is due, and returns when to do so again.
func (e *evaluation) turn(ctx context.Context, now time.Time) time.Time {
	if e.over {
		return time.Time{} // kicked by a wake that was under way
	}
	if e.lingered(now) && e.hub.retire(e) {
		e.over = true
		e.release()
		return time.Time{}
	}
	if e.pass != nil {
		return e.pass.run(ctx, now)
	}
	ms := now.UnixMilli()
	horizon := ms - e.hub.opts.horizon()
	e.forget(ms)
	changed, err := e.src.refresh(ctx, min(horizon, e.next))
	if errors.Is(err, errTooMuch) {
		e.src.close()
		e.src = newStepped(e)
		e.setMode(ModeStepped)
		changed, err = e.src.refresh(ctx, min(horizon, e.next))
	}
	e.note(changed)
	done, held := true, false
	if err == nil || errors.Is(err, errDeaf) {
		done, held = e.correct(ctx, changed, ms)
	}
	if e.light() && e.cold() {
		return now // the rest as a heavy one, in order
	}
	if newest := floor(ms-e.hub.opts.delay(), e.key.step); newest >= e.next {
		held = e.advance(ctx, newest, err) || held
	}
	switch {
	case held:
		return now.Add(min(look, time.Duration(e.key.step)*time.Millisecond))
	case !done:
		return now // again, after the others
	}
	due := time.UnixMilli(e.next + e.hub.opts.delay())
	if late := now.Add(look); late.Before(due) {
		return late
	}
	return due
}

// publish gives an event to all subscribers; last is the newest step done.
func (e *evaluation) publish(en entry, last int64) {
	e.events = append(e.events[:0], en)
	e.publishAll(e.events, last)
}

// publishAll gives events to all subscribers, in one go.
func (e *evaluation) publishAll(ens []entry, last int64) {
	now := e.hub.opts.Clock.Now().UnixMilli()
	e.mu.Lock()
	for i := range ens {
		e.tellLocked(&ens[i], now)
	}
	e.mu.last = max(e.mu.last, last)
	e.wakes = e.wakes[:0]
	for _, s := range e.mu.subs {
		if s.armed.CompareAndSwap(true, false) && s.wake != nil {
			e.wakes = append(e.wakes, s)
		}
	}
	e.mu.Unlock()
	clear(ens)
	for i, s := range e.wakes {
		s.wake()
		e.wakes[i] = nil
	}
}

// tellLocked puts an event into the ring, and a step or its failure among the recent.
func (e *evaluation) tellLocked(en *entry, now int64) {
	en.known = e.mu.series.next
	r, old := &e.mu.recent, en.old
	en.old = nil
	switch {
	case e.key.samples:
	case en.held:
	case en.err != nil: // later samples may mend it
		failed := &Step{T: en.t, failed: true}
		if old != nil {
			failed.Rev = old.Rev
		}
		r.put(failed, e.mu.ring.head)
	case en.step != nil && old == nil:
		en.at = r.lend(now)
		r.put(en.step, e.mu.ring.head)
	case en.step != nil:
		en.step.Rev = r.revise(old, now)
		r.put(en.step, e.mu.ring.head)
	}
	e.mu.ring.push(*en)
}

// row is one value of a step whose series has no number yet.
type row struct {
	labels labels.Labels
	value  Value
	slot   **named // where its number is kept, if not nil
}

// number makes steps of rows, the i-th at times[i]. They are published before anything else.
func (e *evaluation) number(times []int64, rows [][]row) []*Step {
	steps := make([]*Step, len(times))
	e.mu.Lock()
	defer e.mu.Unlock()
	seq := e.mu.ring.head + uint64(len(times)) // the last of them will have it at most
	for i, t := range times {
		s := &Step{T: t, Values: make([]Value, len(rows[i]))}
		for j := range rows[i] {
			n := e.nameLocked(&rows[i][j])
			n.seq = max(n.seq, seq)
			s.Values[j] = rows[i][j].value
			s.Values[j].Series = n.ID
		}
		slices.SortFunc(s.Values, func(a, b Value) int { return int(a.Series) - int(b.Series) })
		steps[i] = s
	}
	return steps
}

// nameLocked returns the row's series.
func (e *evaluation) nameLocked(r *row) *named {
	if r.slot != nil && *r.slot != nil && !(*r.slot).gone {
		return *r.slot
	}
	n := e.mu.series.find(r.labels)
	if n == nil {
		n = e.mu.series.add(r.labels)
	}
	if r.slot != nil {
		*r.slot = n
	}
	return n
}

// equal compares the values of two steps bit for bit.
func equal(a, b *Step) bool {
	return a.failed == b.failed && slices.EqualFunc(a.Values, b.Values, same)
}

// same compares two values bit for bit.
func same(x, y Value) bool {
	if x.Series != y.Series || (x.H == nil) != (y.H == nil) {
		return false
	}
	if x.H != nil {
		return x.H == y.H || x.H.Equals(y.H)
	}
	return math.Float64bits(x.V) == math.Float64bits(y.V)
}
