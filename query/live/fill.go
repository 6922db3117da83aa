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
}

func (f *filler) state() *taskState { return &f.task }

func (f *filler) class() class { return heavy }

// chunkSteps is how many steps are backfilled by one query at most.
const chunkSteps = 256

// askFill asks for the next part of a subscription's backfill.
func (e *evaluation) askFill(s *Subscription) {
	e.mu.Lock()
	e.mu.asking = append(e.mu.asking, s)
	e.mu.Unlock()
	if e.key.samples {
		e.hub.sched.kick(e)
		return
	}
	e.hub.sched.kick(&e.fills)
}

// run implements task. One query serves all who wait for steps of the same range.
func (f *filler) run(ctx context.Context, now time.Time) time.Time {
	e := f.e
	from, to, ok := e.nextFill()
	if !ok {
		return time.Time{}
	}
	e.mu.Lock()
	e.mu.late = none
	e.mu.Unlock()
	steps, err := e.query(ctx, from, to)
	if ctx.Err() != nil {
		return time.Time{}
	}
	for _, s := range e.handFill(steps, from, to, err) {
		if s.wake != nil {
			s.wake()
		}
	}
	return now // look for more
}

// nextFill returns the range to compute: from the first step that anyone waits for.
func (e *evaluation) nextFill() (from, to int64, ok bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, s := range e.mu.asking {
		if s.fill != nil && (!ok || s.fill.next < from) {
			from, ok = s.fill.next, true
		}
	}
	if !ok {
		return 0, 0, false
	}
	n := int64(chunkSteps)
	if e.mu.ring.values > 0 {
		perStep := int64(e.mu.ring.values) / int64(e.mu.ring.head-e.mu.ring.tail)
		n = max(min(n, int64(e.hub.opts.RingValues)/max(perStep, 1)), 1)
	}
	return from, min(from+(n-1)*e.key.step, e.mu.last), true
}

// handFill gives computed steps to those who wait for them, and returns whom to wake.
func (e *evaluation) handFill(steps []*Step, from, to int64, err error) (wakes []*Subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	horizon := e.hub.opts.Clock.Now().UnixMilli() - e.hub.opts.horizon()
	for _, s := range steps {
		if s.T >= horizon {
			e.mu.filled = append(e.mu.filled, s)
		}
	}
	if late := e.mu.late; len(e.mu.filled) > 0 && !late.empty() {
		e.mu.owed.add(late.from, late.to)
	}
	waiting := e.mu.asking[:0]
	for _, s := range e.mu.asking {
		f := s.fill
		switch {
		case f == nil: // closed
		case f.next < from || f.next > to:
			waiting = append(waiting, s)
		default:
			end := min(to, f.seam)
			i, j := int((f.next-from)/e.key.step), int((end-from)/e.key.step)+1
			f.take(steps[min(i, len(steps)):min(j, len(steps))], end+e.key.step, e.mu.series.next, kindOf(err))
			f.stamp = s.stamp
			if err != nil {
				f.missing = Dropped{Count: int64(j-i) - int64(len(f.ready)), From: f.next - e.key.step*(int64(j-i)-int64(len(f.ready))), To: end}
			}
			if s.armed.CompareAndSwap(true, false) {
				wakes = append(wakes, s)
			}
		}
	}
	clear(e.mu.asking[len(waiting):])
	e.mu.asking = waiting
	return wakes
}
