package live

import (
	"context"
	"time"
)

// filler computes backfill for an evaluation's subscriptions: a task of its own, so
// that a long one does not hold up the steps.
type filler struct {
	e    *evaluation
	task taskState
	hold time.Time // until when nothing is computed, since the storage can't be read
	// failed is how many steps were given up with the last that failed; 0: another has been
	// computed since. With the next go twice as many, lest all be tried where all fail.
	failed int64
}

func (f *filler) state() *taskState { return &f.task }

func (f *filler) class() class { return heavy }

// chunkSteps is how many steps are backfilled by one query at most, and firstSteps how many
// while it is not known how large they are.
const chunkSteps, firstSteps = 256, 32

// askFill asks for the next part of a subscription's backfill.
func (e *evaluation) askFill(s *Subscription) {
	e.mu.Lock()
	e.mu.asking = append(e.mu.asking, s)
	e.mu.Unlock()
	if e.key.samples {
		e.reads.Store(true)
		e.hub.sched.kick(e)
		return
	}
	e.hub.sched.kick(&e.fills)
}

// piece is a part of a backfill that has been computed, for all who come to need it: they
// hold little of it themselves, so that a slow one costs no more.
type piece struct {
	from, to int64 // Unix ms
	steps    []*Step
	head     uint64 // of the ring when its query began: later events may correct it
	known    uint32 // as in entry
}

// pieces are those at hand, the one used last at the end.
type pieces struct {
	at      []*piece
	values  int
	perStep int // values of a step of the newest; 0: none was there
}

// add keeps a piece, and lets go of others while there are more than most values.
func (p *pieces) add(x *piece, most int) {
	p.at = append(p.at, x)
	p.perStep = valuesOf(x.steps) / len(x.steps)
	p.values += valuesOf(x.steps)
	for len(p.at) > 1 && (p.values > most || len(p.at) > maxPieces) {
		p.values -= valuesOf(p.at[0].steps)
		p.at = append([]*piece(nil), p.at[1:]...)
	}
}

// find returns a piece with the step at t that lacks no correction of before the event at seq.
func (p *pieces) find(t int64, seq uint64) *piece {
	for i := len(p.at) - 1; i >= 0; i-- {
		if x := p.at[i]; x.from <= t && t <= x.to && x.head >= seq {
			copy(p.at[i:], p.at[i+1:])
			p.at[len(p.at)-1] = x
			return x
		}
	}
	return nil
}

func valuesOf(steps []*Step) (n int) {
	for _, s := range steps {
		n += 1 + len(s.Values)
	}
	return n
}

const (
	maxPieces = 32
	// maxReady is how many values a subscriber holds of a piece, a step at least: 96 KiB
	// with what they are in JSON.
	maxReady = 2048
)

// run implements task. One query serves all who wait for steps of the same range.
func (f *filler) run(ctx context.Context, now time.Time) time.Time {
	e := f.e
	e.wake(e.serve())
	if now.Before(f.hold) {
		return f.hold
	}
	x, ok := e.nextPiece()
	if !ok {
		return time.Time{}
	}
	to := x.to
	steps, err := e.query(ctx, x.from, to)
	if ctx.Err() != nil {
		return time.Time{}
	}
	if err != nil {
		x.to = x.from + int64(len(steps)-1)*e.key.step
	}
	e.keep(x, steps)
	switch {
	case len(steps) > 0: // hand them out, and look for more
		f.failed = 0
	case passing(err):
		f.hold = now.Add(look)
		e.wake(e.fail(x.from, to, err))
	default:
		f.failed = max(2*f.failed, 1)
		e.wake(e.fail(x.from, min(to, x.from+(f.failed-1)*e.key.step), err))
	}
	return now
}

func (e *evaluation) wake(subs []*Subscription) {
	for _, s := range subs {
		if s.wake != nil {
			s.wake()
		}
	}
}

// serve hands what is at hand to those who wait for it, and returns whom to wake.
func (e *evaluation) serve() []*Subscription {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.handLocked(func(s *Subscription) bool {
		f := s.fill
		x := e.mu.pieces.find(f.next, max(s.seq, s.caught))
		if x == nil {
			return false
		}
		i, end := int((f.next-x.from)/e.key.step), min(x.to, f.seam)
		var ready []*Step
		for n := 0; i < len(x.steps) && x.steps[i].T <= end && (n == 0 || n+len(x.steps[i].Values) < maxReady); i++ {
			ready = append(ready, x.steps[i])
			n += 1 + len(x.steps[i].Values)
		}
		f.take(ready, ready[len(ready)-1].T+e.key.step, x.known, nil)
		return true
	})
}

// handLocked calls give with each who waits, and returns those to wake of whom it served.
func (e *evaluation) handLocked(give func(*Subscription) bool) (wakes []*Subscription) {
	waiting := e.mu.asking[:0]
	for _, s := range e.mu.asking {
		switch {
		case s.fill == nil: // closed
		case !give(s):
			waiting = append(waiting, s)
		case s.armed.CompareAndSwap(true, false):
			wakes = append(wakes, s)
		}
	}
	clear(e.mu.asking[len(waiting):])
	e.mu.asking = waiting
	return wakes
}

// nextPiece returns what to compute: from the first step that anyone waits for.
func (e *evaluation) nextPiece() (x *piece, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x = &piece{head: e.mu.ring.head}
	for _, s := range e.mu.asking {
		if s.fill != nil && (!ok || s.fill.next < x.from) {
			x.from, ok = s.fill.next, true
		}
	}
	if !ok {
		return nil, false
	}
	n := int64(firstSteps)
	if per := e.mu.pieces.perStep; per > 0 { // some of them shall be at hand
		n = max(min(chunkSteps, int64(e.hub.opts.RingValues/4/per)), 1)
	}
	x.to = min(x.from+(n-1)*e.key.step, e.mu.last)
	e.mu.late = none
	return x, true
}

// keep puts a computed piece with the others, and its newest steps with those that can
// be corrected.
func (e *evaluation) keep(x *piece, steps []*Step) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x.steps, x.known = steps, e.mu.series.next; len(steps) > 0 {
		e.mu.pieces.add(x, e.hub.opts.RingValues)
	}
	horizon := e.hub.opts.Clock.Now().UnixMilli() - e.hub.opts.horizon()
	for _, s := range steps {
		if s.T >= horizon {
			e.mu.filled = append(e.mu.filled, s)
		}
	}
	if late := e.mu.late; len(e.mu.filled) > 0 && !late.empty() {
		e.mu.owed.add(late.from, late.to)
		e.hub.sched.kick(e)
	}
}

// fail tells those who wait for steps of a piece that these can't be computed: for now,
// if that will pass, or they are given up.
func (e *evaluation) fail(from, to int64, err error) []*Subscription {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.handLocked(func(s *Subscription) bool {
		f := s.fill
		if f.next < from || f.next > to {
			return false
		}
		next, end := f.next, min(to, f.seam)
		f.missing = Dropped{To: next}
		if !passing(err) {
			next = end + e.key.step
			f.missing = Dropped{Count: (next - f.next) / e.key.step, From: f.next, To: end}
		}
		f.take(nil, next, e.mu.series.next, kindOf(err))
		return true
	})
}
