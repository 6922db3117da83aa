package client

import (
	"context"
	"encoding/json"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/frame"
)

// maxRevs is how many corrected steps are remembered, to know a repetition.
const maxRevs = 4096

// Update is something new of a subscription: a step (or samples), series that have
// ended, a gap, or a step that failed.
type Update struct {
	Time time.Time
	// Rev is 0 for the first result of a step; a correction of it has a higher one.
	Rev     uint32
	Samples []Sample
	Stale   []map[string]string // series that ended at Time
	Dropped *Dropped            // what is missing before this
	Err     error               // an *Error: the step could not be evaluated; others follow
}

// Sample is the value of one series.
type Sample struct {
	Labels map[string]string
	Value  float64
	// Histogram, if set, stands for the value: an object as in Prometheus' HTTP API.
	Histogram json.RawMessage
}

// Dropped is a gap: Count steps or samples (0: unknown) between two times, inclusive.
type Dropped struct {
	Count    int64
	From, To time.Time
}

// Subscription is a live query.
type Subscription struct {
	c     *Client
	told  *websocket.Conn // on which the server knows it; guarded by c.mu
	sub   frame.Sub
	began time.Time
	wake  chan struct{} // capacity 1
	mu    struct {
		sync.Mutex
		on      *websocket.Conn // that the numbers in series are of
		series  map[uint32]series
		cursor  int64            // what to resume after: the newest step seen; Unix milliseconds
		first   int64            // the oldest that came, or failed, or was dropped
		revs    map[int64]uint32 // of corrected steps
		revised int64            // the greatest sum of time and revision of these
		seen    seen             // in samples mode
		queue   []Update
		dropped *Dropped // what did not fit into the queue
		err     error
	}
}

// Next waits for the next update. The error is that of ctx, ErrClosed, ErrRefused, or
// an *Error with which the server has ended the subscription.
func (s *Subscription) Next(ctx context.Context) (Update, error) {
	for {
		if u, ok, err := s.pop(); ok || err != nil {
			return u, err
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Update{}, ctx.Err()
		}
	}
}

// All gives the updates until there is an error, which comes last.
func (s *Subscription) All(ctx context.Context) iter.Seq2[Update, error] {
	return func(yield func(Update, error) bool) {
		for {
			u, err := s.Next(ctx)
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

func (s *Subscription) pop() (u Update, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.dropped != nil:
		u = Update{Time: s.mu.dropped.To, Dropped: s.mu.dropped}
		s.mu.dropped = nil
		return u, true, nil
	case len(s.mu.queue) > 0:
		u = s.mu.queue[0]
		s.mu.queue[0] = Update{}
		s.mu.queue = s.mu.queue[1:]
		return u, true, nil
	}
	return u, false, s.mu.err
}

// Close ends the subscription; Next then gives ErrClosed. It may be called again.
func (s *Subscription) Close() {
	s.c.forget(s, true)
	s.end(ErrClosed)
}

// end lets Next give err once the queue is empty. The first one counts.
func (s *Subscription) end(err error) {
	s.mu.Lock()
	if s.mu.err == nil {
		s.mu.err = err
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// want is what the server is asked for on a connection: to go on where we are. What
// numbers meant on another is forgotten.
func (s *Subscription) want(ws *websocket.Conn) frame.Sub {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.on != ws {
		s.mu.on = ws
		clear(s.mu.series)
	}
	w := s.sub
	if s.mu.cursor > 0 {
		w.Resume, w.Seen, w.Backfill = frame.Time(s.mu.cursor), frame.Time(s.mu.revised), 0
	} else if since := time.Since(s.began); since > time.Second {
		w.Backfill += frame.Duration(since.Round(time.Millisecond))
	}
	return w
}

// take is the reader's.
func (s *Subscription) take(f *frame.Frame) {
	switch f.Type {
	case frame.Ack:
		s.begun(f.T)
	case frame.Series:
		s.mu.Lock()
		for _, d := range f.Series {
			s.mu.series[d.N] = seriesOf(d.Labels)
		}
		s.mu.Unlock()
	case frame.Data:
		s.data(f)
	case frame.Stale:
		s.stale(f)
	case frame.Dropped:
		s.begin(f.From)
		s.push(Update{Time: at(f.To), Dropped: &Dropped{f.Count, at(f.From), at(f.To)}})
	case frame.Error:
		s.fault(f)
	}
}

func at(t frame.Time) time.Time { return time.UnixMilli(int64(t)) }

func (s *Subscription) fault(f *frame.Frame) {
	err := &Error{f.ErrorType, f.Error}
	switch {
	case !f.Ended:
		s.begin(f.T)
		s.push(Update{Time: at(f.T), Err: err})
	case err.passing():
		s.c.mu.Lock()
		s.told = nil
		s.c.mu.Unlock()
		select {
		case s.c.retry <- struct{}{}:
		default:
		}
	default:
		s.c.forget(s, false)
		s.end(err)
	}
}

func (s *Subscription) data(f *frame.Frame) {
	s.mu.Lock()
	samples := s.sub.Mode == frame.ModeSamples
	fresh := samples || s.freshLocked(int64(f.T), f.Rev)
	u := Update{Time: at(f.T), Rev: f.Rev}
	if fresh {
		u.Samples = make([]Sample, 0, len(f.V))
		for _, v := range f.V {
			if x := s.mu.series[v.N]; !samples || s.mu.seen.add(x.hash, int64(f.T), v.Raw) {
				u.Samples = append(u.Samples, sampleOf(x.labels, v.Raw))
			}
		}
	}
	s.mu.Unlock()
	if fresh && (!samples || len(u.Samples) > 0) {
		s.push(u)
	}
}

// freshLocked notes a step, and reports whether it was not seen before.
func (s *Subscription) freshLocked(t int64, rev uint32) bool {
	if rev == 0 {
		if t <= s.mu.cursor {
			return false
		}
		s.beginLocked(t)
	} else {
		if s.mu.first == 0 || t < s.mu.first { // nobody asked for it: the server does not know where we began
			return false
		}
		if old, ok := s.mu.revs[t]; ok && rev <= old {
			return false
		}
		if len(s.mu.revs) >= maxRevs {
			oldest := t
			for k := range s.mu.revs {
				oldest = min(oldest, k)
			}
			delete(s.mu.revs, oldest)
		}
		s.mu.revs[t] = rev
	}
	if rev > 0 {
		s.mu.revised = max(s.mu.revised, t+int64(rev))
	}
	s.mu.cursor = max(s.mu.cursor, t)
	return true
}

// begun notes from where on the server sends, for the case that the connection breaks
// before it has sent anything.
func (s *Subscription) begun(t frame.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.cursor == 0 {
		s.mu.cursor = int64(t)
	}
}

// known notes up to when samples mode has all. Steps say so by themselves.
func (s *Subscription) known(t frame.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sub.Mode == frame.ModeSamples {
		s.mu.cursor = max(s.mu.cursor, int64(t))
	}
}

func (s *Subscription) begin(t frame.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beginLocked(int64(t))
}

// beginLocked notes a step that was asked for.
func (s *Subscription) beginLocked(t int64) {
	if s.mu.first == 0 || t < s.mu.first {
		s.mu.first = t
	}
}

func sampleOf(labels map[string]string, raw json.RawMessage) Sample {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return Sample{Labels: labels, Histogram: raw}
	}
	v, _ := strconv.ParseFloat(text, 64) // the server wrote it
	return Sample{Labels: labels, Value: v}
}

func (s *Subscription) stale(f *frame.Frame) {
	u := Update{Time: at(f.T)}
	s.mu.Lock()
	for _, n := range f.Stale {
		u.Stale = append(u.Stale, s.mu.series[n].labels)
	}
	s.mu.Unlock()
	s.push(u)
}

// push queues an update; when there is no room, the oldest goes.
func (s *Subscription) push(u Update) {
	s.mu.Lock()
	if len(s.mu.queue) >= s.c.opts.Buffer {
		s.dropLocked()
	}
	s.mu.queue = append(s.mu.queue, u)
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) dropLocked() {
	old := s.mu.queue[0]
	s.mu.queue[0] = Update{}
	s.mu.queue = s.mu.queue[1:]
	d := s.mu.dropped
	if d == nil {
		d = &Dropped{From: old.Time}
		if old.Dropped != nil {
			d.From = old.Dropped.From
		}
		s.mu.dropped = d
	}
	d.To = old.Time
	switch {
	case old.Dropped != nil:
		d.Count += old.Dropped.Count
	case s.sub.Mode == frame.ModeSamples:
		d.Count += int64(len(old.Samples))
	case old.Samples != nil:
		d.Count++
	}
}
