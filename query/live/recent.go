package live

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// version is the newest of a step's revisions.
type version struct {
	step *Step
	seq  uint64 // of the event that told it; 0: a backfill did
}

// recents holds the steps that can still be corrected, and for about as long again
// those that no longer can, for clients that come back: in order of time, in their newest
// revisions. Only the evaluation's run changes it, under the evaluation's lock.
type recents struct {
	at     []version
	values int
	// stamp is the time, in Unix milliseconds, that revisions are drawn from: it never goes
	// back, and no step that is known has a revision above what it gives. lent: a step was
	// sent again under it, so that the next correction must have a later one.
	stamp int64
	lent  bool
}

// find returns where the step at t is or would be.
func (r *recents) find(t int64) (int, bool) {
	if n := len(r.at); n == 0 || r.at[n-1].step.T < t {
		return n, false
	}
	return slices.BinarySearchFunc(r.at, t, func(x version, t int64) int { return cmp.Compare(x.step.T, t) })
}

// put keeps a step in the place of what is known of its time.
func (r *recents) put(s *Step, seq uint64) {
	i, ok := r.find(s.T)
	if !ok {
		r.at = slices.Insert(r.at, i, version{})
	} else {
		r.values -= len(r.at[i].step.Values)
	}
	r.at[i] = version{s, seq}
	r.values += len(s.Values)
}

// forget lets go of what lies before oldest, and of what lies before horizon while there
// are more than most values.
func (r *recents) forget(oldest, horizon int64, most int) {
	n := 0
	for n < len(r.at) && (r.at[n].step.T < oldest || r.values > most && r.at[n].step.T < horizon) {
		r.values -= len(r.at[n].step.Values)
		n++
	}
	if n > 0 {
		r.at = append(r.at[:0], r.at[n:]...)
		clear(r.at[len(r.at):cap(r.at)])
	}
}

// step returns the step at t; nil: it is not known.
func (r *recents) step(t int64) *Step {
	if i, ok := r.find(t); ok {
		return r.at[i].step
	}
	return nil
}

// corrected returns the first correction of a step in the fill's fix that an event from was
// to before the cursor has told, of what was sent again only from caught on; nil: there is none.
func (s *Subscription) corrected() *Step {
	r, fix := &s.e.mu.recent, s.fill.fix
	i, _ := r.find(fix.from)
	for ; i < len(r.at) && r.at[i].step.T <= fix.to; i++ {
		v, from := r.at[i], s.fill.was
		if v.step.T <= s.after {
			from = max(from, s.caught)
		}
		if v.seq >= from && v.seq < s.seq && v.step.Rev > 0 && !v.step.failed {
			return v.step
		}
	}
	return nil
}

// lend draws the stamp of what is sent again at now. Whoever comes before the next
// correction has the same one.
func (r *recents) lend(now int64) int64 {
	if !r.lent {
		r.stamp++
	}
	r.stamp, r.lent = max(r.stamp, now), true
	return r.stamp
}

// revise draws the revision of a correction of old at now.
func (r *recents) revise(old *Step, now int64) uint32 {
	r.stamp = max(r.stamp, now)
	if r.lent || revision(r.stamp, old.T) <= old.Rev {
		r.stamp++
	}
	r.lent = false
	return revision(r.stamp, old.T)
}

// revision is that of the step at t under a stamp: its age, and at least 1.
func revision(stamp, t int64) uint32 { return uint32(min(max(stamp-t+1, 1), 1<<32-1)) }

// correctTime is about how long an evaluation corrects before it sees to what is due
// and lets others run.
const correctTime = 10 * time.Millisecond

// correct evaluates again what may have changed, the oldest first, and publishes what
// has. false: there is more, for the next run; what changes meanwhile waits until then,
// so that a stream of late samples can't keep any step from its turn. held: it failed in
// a way that will pass.
func (e *evaluation) correct(ctx context.Context, changed span, now int64) (done, held bool) {
	if changed.to = min(changed.to, e.next-e.key.step); !changed.empty() { // later steps know all
		e.late.add(changed.from, changed.to)
	}
	if e.owed.empty() {
		e.owed, e.late = e.late, none
	}
	recent := e.mu.recent.at
	first, _ := e.mu.recent.find(now - e.hub.opts.horizon())
	if e.owed.empty() || first == len(recent) {
		e.owed = none
		return true, false
	}
	from, to := max(ceil(e.owed.from, e.key.step), recent[first].step.T), floor(min(e.owed.to, recent[len(recent)-1].step.T), e.key.step)
	began := e.hub.opts.Clock.Now()
	for from <= to && ctx.Err() == nil {
		if e.hub.opts.Clock.Now().Sub(began) > correctTime {
			e.owed = span{from, to}
			return false, false
		}
		end := min(to, from+(catchUp-1)*e.key.step)
		steps, err := e.src.steps(ctx, from, end)
		for _, s := range steps {
			e.replace(s, nil)
			from = s.T + e.key.step
		}
		switch {
		case err == nil:
			from = end + e.key.step
		case errors.Is(err, errHeavy):
			e.owed = span{from, to}
			return false, false
		case ctx.Err() == nil && passing(err):
			e.owed = span{from, to}
			return false, true
		case ctx.Err() == nil:
			e.replace(&Step{T: from, failed: true}, err)
			from += e.key.step
		}
	}
	e.owed = none
	return e.late.empty() || ctx.Err() != nil, false
}

// replace publishes a step that was evaluated again, if its values or its failure differ.
func (e *evaluation) replace(s *Step, err error) {
	i, ok := e.mu.recent.find(s.T)
	if !ok || equal(e.mu.recent.at[i].step, s) {
		return
	}
	en := entry{step: s, t: s.T, old: e.mu.recent.at[i].step}
	last := e.next - e.key.step
	if err != nil {
		en.step, en.err = nil, kindOf(err)
		e.publish(en, last)
		return
	}
	if e.newest != nil && e.newest.T == s.T {
		en.stale = ended(e.newest, s)
		e.newest = s
	}
	e.publish(en, last)
}

// note remembers what has changed, for the steps that are being backfilled meanwhile, or
// were and are not among the recent yet.
func (e *evaluation) note(changed span) {
	if changed.empty() {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.late.add(changed.from, changed.to)
	if len(e.mu.filled) > 0 {
		e.mu.owed.add(changed.from, changed.to)
		e.hub.sched.kick(e)
	}
}

// forget lets go of steps that are too old to be corrected or sent again, takes in
// backfilled ones, and drops numbers that nothing uses.
func (e *evaluation) forget(now int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r, horizon := &e.mu.recent, e.hub.opts.horizon()
	for _, s := range e.mu.filled {
		if _, known := r.find(s.T); !known {
			r.put(s, 0)
		}
	}
	if owed := e.mu.owed; !owed.empty() {
		e.late.add(owed.from, owed.to)
	}
	e.mu.filled, e.mu.owed = nil, none
	if e.mu.filling.Load() == 0 {
		e.mu.pieces.at, e.mu.pieces.values = nil, 0
	}
	r.forget(now-2*horizon, now-horizon, e.hub.opts.RingValues)
	if e.mu.series.crowded() && e.mu.filling.Load() == 0 {
		used := map[uint32]struct{}{}
		for _, v := range r.at {
			for i := range v.step.Values {
				used[v.step.Values[i].Series] = struct{}{}
			}
		}
		e.mu.series.forget(e.mu.ring.tail, used)
	}
}
