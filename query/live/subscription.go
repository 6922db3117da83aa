package live

import (
	"sync/atomic"
	"time"
)

// maxPoll is how many events a Poll gives at most, and maxDefs how many label sets in one.
const (
	maxPoll = 64
	maxDefs = 1000
)

// Subscription is a cursor into the events of an evaluation. It is for one goroutine
// at a time.
type Subscription struct {
	e       *evaluation
	wake    func()
	max     int    // series a step
	after   int64  // steps up to here are known to the client, in some revision
	start   int64  // the first step wanted: earlier ones are not corrected for it
	caught  uint64 // corrections before this event are in what was sent again
	stamp   int64  // of what is sent again, see recents
	since   int64  // see Since
	seq     uint64
	told    uint32   // the number behind those told
	last    *Step    // the newest given
	jumped  bool     // what comes next does not follow on last
	missing *Dropped // to be told first
	fill    *fill    // nil once live
	at      int      // in the evaluation's list
	armed   atomic.Bool
	ended   atomic.Pointer[error]
}

// fill is the part of a subscription that lies before the evaluation's events: steps
// [next, seam] are still to be computed.
type fill struct {
	next, seam int64
	ready      []*Step
	stamp      int64   // under which those of ready that the client knows are sent again; 0: they are revised
	known      uint32  // as in entry
	err        error   // why missing is; comes after ready
	missing    Dropped // steps that could not be computed
	asked      bool
}

// Info describes the subscription.
func (s *Subscription) Info() Info {
	return Info{Query: s.e.plan.text, Step: time.Duration(s.e.key.step) * time.Millisecond, Mode: s.e.mode()}
}

// Since returns what to resume after, as Request.After, so that nothing is lost of what
// Poll has not given so far: the newest step given, or in samples mode the moment up to
// which Poll has given all.
func (s *Subscription) Since() int64 { return s.since }

// Err returns why the subscription has ended, or nil.
func (s *Subscription) Err() error {
	if err := s.ended.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the subscription and gives everything back. Idempotent.
func (s *Subscription) Close() { s.e.unsubscribe(s, ErrClosed) }

// Poll appends what there is, in order, and never blocks. It gives a bounded number of
// events a call; Wake is called again only after a Poll that gave none.
func (s *Subscription) Poll(dst []Event) []Event {
	if s.Err() != nil {
		return dst
	}
	s.armed.Store(false)
	had := len(dst)
	e := s.e
	known := e.known.Load() // first: what was applied by then is in the ring by now
	e.mu.RLock()
	ask := false
	for more := true; more && len(dst)-had < maxPoll; {
		switch {
		case s.missing != nil:
			dst = append(dst, Event{Kind: DroppedKind, Dropped: *s.missing})
			s.missing = nil
		case s.fill != nil:
			dst, more, ask = s.pollFill(dst)
		default:
			dst, more = s.pollRing(dst)
		}
	}
	if len(dst) == had {
		s.armed.Store(true)
		if e.key.samples && s.fill == nil {
			s.since = max(s.since, known)
		}
	}
	e.mu.RUnlock()
	if ask {
		e.askFill(s)
	}
	return dst
}

// pollRing gives the next event; the caller holds the evaluation's lock for reading.
func (s *Subscription) pollRing(dst []Event) (_ []Event, more bool) {
	r := &s.e.mu.ring
	if s.seq < r.tail {
		was := s.seq
		s.seq = r.newest()
		s.fellBehind(r, was)
		return dst, true
	}
	if s.seq >= r.head {
		return dst, false
	}
	en := r.get(s.seq)
	if en.step == nil || len(en.step.Values) <= s.max {
		var whole bool
		if dst, whole = s.tell(dst, en.known); !whole {
			return dst, true
		}
	}
	s.seq++
	switch {
	case en.err != nil:
		dst = append(dst, Event{Kind: ErrorKind, Err: en.err, T: en.t})
	case en.step == nil:
		dst = append(dst, Event{Kind: DroppedKind, Dropped: en.dropped})
	case !s.e.key.samples && en.step.Rev > 0 && (en.t < s.start || en.t <= s.after && s.seq <= s.caught):
	case !s.e.key.samples && en.step.Rev == 0 && en.t <= s.after: // the client has it from another evaluation
		dst = s.giveAgain(dst, en.step, en.at)
	default:
		dst = s.give(dst, en.step, en.stale)
	}
	return dst, true
}

// fellBehind notes what lies between the last step given and the newest, and what was
// corrected since the event at was.
func (s *Subscription) fellBehind(r *ring, was uint64) {
	s.jumped = true
	if s.e.key.samples {
		s.missing = &Dropped{From: s.since, To: max(s.since, s.e.known.Load())}
		return
	}
	if s.seq == r.head {
		return
	}
	step, newest := s.e.key.step, r.get(s.seq).t
	last := floor(s.since, step)
	if n := (newest-last)/step - 1; n > 0 {
		s.missing = &Dropped{Count: n, From: last + step, To: newest - step}
	}
	s.corrected(&fill{next: newest, seam: newest - step}, last, was)
}

// corrected lets f begin with the steps up to to that were corrected since the event at was.
func (s *Subscription) corrected(f *fill, to int64, was uint64) {
	f.ready = s.e.mu.recent.corrected(s.start, to, was)
	if f.known, f.stamp = s.e.mu.series.next, 0; len(f.ready) > 0 && s.fill == nil {
		s.fill = f
		s.e.mu.filling.Add(1)
	}
}

// tell defines the series up to the number known; false: there are more.
func (s *Subscription) tell(dst []Event, known uint32) ([]Event, bool) {
	if s.told >= known {
		return dst, true
	}
	defs := s.e.mu.series.between(s.told, known)
	whole := len(defs) <= maxDefs
	if !whole {
		defs = defs[:maxDefs]
		s.told = defs[maxDefs-1].ID + 1
	} else {
		s.told = known
	}
	if len(defs) > 0 {
		dst = append(dst, Event{Kind: SeriesKind, Series: defs})
	}
	return dst, whole
}

// give appends a step, and what has ended with it.
func (s *Subscription) give(dst []Event, step *Step, stale []uint32) []Event {
	if len(step.Values) > s.max {
		s.jumped = true
		return append(dst, Event{Kind: ErrorKind, Err: tooManySeries(s.max), T: step.T})
	}
	dst = append(dst, Event{Kind: DataKind, Step: step})
	if s.e.key.samples {
		return dst
	}
	s.since = max(s.since, step.T)
	switch {
	case !s.jumped:
	case step.Rev == 0:
		stale = ended(s.last, step)
		s.jumped = false
	case s.last != nil && step.T == s.last.T:
		stale = ended(s.last, step)
	}
	if s.last == nil || step.T >= s.last.T {
		s.last = step
	}
	if len(stale) > 0 {
		dst = append(dst, Event{Kind: StaleKind, Stale: stale, T: step.T})
	}
	return dst
}

// giveAgain appends a step that the client knows as one that is corrected.
func (s *Subscription) giveAgain(dst []Event, step *Step, stamp int64) []Event {
	again := &Step{T: step.T, Rev: revision(stamp, step.T), Values: step.Values}
	dst = s.give(dst, again, nil)
	s.jumped = true
	return dst
}

// ended lists the series of a that are not in b.
func ended(a, b *Step) (out []uint32) {
	if a == nil {
		return nil
	}
	i := 0
	for _, v := range a.Values {
		for i < len(b.Values) && b.Values[i].Series < v.Series {
			i++
		}
		if i == len(b.Values) || b.Values[i].Series != v.Series {
			out = append(out, v.Series)
		}
	}
	return out
}

// pollFill gives the next event of the backfill; ask: more must be computed.
func (s *Subscription) pollFill(dst []Event) (_ []Event, more, ask bool) {
	f := s.fill
	switch {
	case f.asked:
		return dst, false, false
	case len(f.ready) > 0:
		var whole bool
		if dst, whole = s.tell(dst, f.known); !whole {
			return dst, true, false
		}
		if step := f.ready[0]; f.stamp > 0 && step.T <= s.after {
			dst = s.giveAgain(dst, step, f.stamp)
		} else {
			s.jumped = true
			dst = s.give(dst, step, nil)
		}
		f.ready = f.ready[1:]
	case f.err != nil:
		dst = append(dst, Event{Kind: ErrorKind, Err: f.err, T: f.missing.To}, Event{Kind: DroppedKind, Dropped: f.missing})
		f.err = nil
	case f.next <= f.seam:
		f.asked = true
		return dst, false, true
	case s.seq < s.e.mu.ring.tail && !s.e.key.samples: // the ring has moved on meanwhile
		was := s.seq
		s.seq = s.e.mu.ring.head
		s.corrected(f, f.next-s.e.key.step, was)
		f.seam = s.e.mu.last
	default:
		s.fill = nil
		s.jumped = true
		s.e.mu.filling.Add(-1)
	}
	return dst, true, false
}

// take hands steps to a fill that waits for them; the caller holds the evaluation's lock.
func (f *fill) take(steps []*Step, next int64, known uint32, err error) {
	f.ready, f.next, f.known, f.err, f.asked = steps, next, known, err, false
}

// grace is by how much, in samples mode, the clocks of two nodes may differ, or one lag
// behind the other, without a loss.
const grace = 5 * time.Second

// from returns the first step that the request wants, maxTime for the next, and the first
// that may have been corrected since the client had it, from if none may. It notes what is
// out of reach.
func (e *evaluation) from(s *Subscription, req *Request, now int64) (from, again int64) {
	o, step := e.hub.opts, max(e.key.step, 1)
	switch {
	case req.After > 0 && e.key.samples:
		from = min(req.After, now)
	case req.After > 0:
		from = ceil(req.After+1, step)
	case req.Backfill > 0:
		from = ceil(now-min(req.Backfill.Milliseconds(), now), step)
	default:
		return maxTime, maxTime
	}
	reach := o.MaxBackfill.Milliseconds()
	if !e.key.samples {
		reach = min(reach, int64(o.MaxBackfillSteps)*step)
	}
	oldest := ceil(now-reach, step)
	if from < oldest {
		s.missing = &Dropped{From: from, To: oldest - step}
		if !e.key.samples {
			s.missing.Count = (oldest - from) / step
		}
		from = oldest
	}
	switch again = from; {
	case req.After > 0 && e.key.samples: // they may be older than the moment at which they were stored
		again = max(from-o.horizon()-grace.Milliseconds(), oldest)
	case req.After > 0:
		again = min(from, max(ceil(req.After-o.horizon()+1, step), oldest))
	}
	return from, again
}

// ceil and floor round to a multiple of step.
func ceil(t, step int64) int64 { return floor(t+step-1, step) }

func floor(t, step int64) int64 {
	if t < 0 {
		return -((-t + step - 1) / step * step)
	}
	return t / step * step
}
