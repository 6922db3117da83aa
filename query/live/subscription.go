package live

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// pollBytes is about how much a Poll gives at most, in bytes of frames, and defsBytes how
// much of label sets one event has. A step comes whole, whatever its size.
const (
	pollBytes = 16 << 10
	defsBytes = 8 << 10
)

// weight is about how many bytes an event takes in a frame.
func (ev *Event) weight() int {
	n := 100 + 8*len(ev.Stale)
	for i := range ev.Series {
		n += weightOf(&ev.Series[i])
	}
	if ev.Step != nil {
		n += 24 * len(ev.Step.Values)
	}
	return n
}

func weightOf(d *SeriesDef) int {
	n := 16
	d.Labels.Range(func(l labels.Label) { n += len(l.Name) + len(l.Value) + 6 })
	return n
}

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
	again      int64    // steps up to here are among the recent, if these go back so far
	fix        span     // steps that were given, whose corrections come first
	was        uint64   // and only those that events from here on told
	ready      []*Step  // computed, in place of those before next
	known      uint32   // as in entry
	err        error    // why missing is; comes after ready
	missing    Dropped  // steps that could not be computed
	backlog    *backlog // what ready is of, in samples mode
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

// Poll appends what there is, in order, and never blocks. A call gives some 16 KiB of
// frames, or one step that is larger; Wake is called again only after a Poll that gave none.
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
	for more, size, n := true, 0, had; more && size < pollBytes; {
		switch {
		case s.missing != nil:
			dst = append(dst, Event{Kind: DroppedKind, Dropped: *s.missing})
			s.missing = nil
		case s.fill != nil:
			dst, more, ask = s.pollFill(dst)
		default:
			dst, more = s.pollRing(dst)
		}
		for ; n < len(dst); n++ {
			size += dst[n].weight()
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
	case en.gap != nil:
		s.fill = &fill{ready: en.gap, next: maxTime + 1, seam: maxTime, known: en.known, fix: none}
		s.e.mu.filling.Add(1)
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
// corrected since the event at was. Where the ring has but failures and corrections, the
// newest is computed.
func (s *Subscription) fellBehind(r *ring, was uint64) {
	s.jumped = true
	if s.e.key.samples {
		s.missing = &Dropped{From: s.since, To: max(s.since, s.e.known.Load())}
		return
	}
	step := s.e.key.step
	last := floor(s.since, step)
	newest := max(s.e.mu.last, last+step)
	seam := s.e.mu.last
	if s.seq < r.head {
		newest = r.get(s.seq).t
		seam = newest - step
	}
	if n := (newest-last)/step - 1; n > 0 {
		s.missing = &Dropped{Count: n, From: last + step, To: newest - step}
	}
	s.fill = &fill{next: newest, seam: seam, fix: span{s.start, last}, was: was}
	s.e.mu.filling.Add(1)
}

// tell defines the series up to the number known; false: there are more.
func (s *Subscription) tell(dst []Event, known uint32) ([]Event, bool) {
	if s.told >= known {
		return dst, true
	}
	defs := s.e.mu.series.between(s.told, known)
	n, size := 0, 0
	for ; n < len(defs) && size < defsBytes; n++ {
		size += weightOf(&defs[n])
	}
	whole := n == len(defs)
	if s.told = known; !whole {
		defs = defs[:n]
		s.told = defs[n-1].ID + 1
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
	f, r := s.fill, &s.e.mu.recent
	switch {
	case f.asked:
		return dst, false, false
	case !f.fix.empty():
		dst = s.pollFix(dst, s.corrected())
	case f.next <= min(f.again, f.seam):
		dst = s.pollRecent(dst, r.step(f.next))
	case len(f.ready) > 0:
		var whole bool
		if dst, whole = s.tell(dst, f.known); !whole {
			return dst, true, false
		}
		if step := f.ready[0]; step.T <= s.after && !s.e.key.samples {
			dst = s.giveAgain(dst, step, s.stamp)
		} else {
			s.jumped = true
			dst = s.give(dst, step, nil)
		}
		f.ready = f.ready[1:]
	case f.err != nil:
		dst = append(dst, Event{Kind: ErrorKind, Err: f.err, T: f.missing.To})
		if f.missing.Count > 0 || s.e.key.samples {
			dst = append(dst, Event{Kind: DroppedKind, Dropped: f.missing})
		}
		f.err = nil
	case f.next <= f.seam:
		f.asked = true
		return dst, false, true
	case s.seq < s.e.mu.ring.tail && !s.e.key.samples: // the ring has moved on meanwhile
		f.fix, f.was = span{s.start, f.next - s.e.key.step}, s.seq
		s.seq, f.seam = s.e.mu.ring.head, s.e.mu.last
	default:
		f.backlog.release()
		s.fill = nil
		s.jumped = true
		s.e.mu.filling.Add(-1)
	}
	return dst, true, false
}

// pollFix gives a step that was corrected; nil: there is no other.
func (s *Subscription) pollFix(dst []Event, step *Step) []Event {
	if step == nil {
		s.fill.fix = none
		return dst
	}
	dst, whole := s.tell(dst, s.e.mu.series.next)
	if whole {
		dst = s.give(dst, step, nil)
		s.fill.fix.from = step.T + 1
	}
	return dst
}

// pollRecent gives a step again that the client knows; nil: the recent don't go back
// so far, and it must be computed.
func (s *Subscription) pollRecent(dst []Event, step *Step) []Event {
	f := s.fill
	if step == nil {
		f.again = f.next - 1
		return dst
	}
	dst, whole := s.tell(dst, s.e.mu.series.next)
	if !whole {
		return dst
	}
	if !step.failed { // what the client has may be right; what mends it will be a correction
		dst = s.giveAgain(dst, step, s.stamp)
	}
	f.next += s.e.key.step
	return dst
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
