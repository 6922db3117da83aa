package live

import (
	"time"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/server/socket"
)

// due is what fill found to do, beside the events.
type due struct {
	subs, gone []*sub
	replies    []reply
	pong       []byte
	beat, ping bool
	bye        bool
	code       int
	reason     string
}

// take collects what is due; false: the connection is over, nothing is.
func (c *conn) take() (d due, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.cut || c.mu.ended || c.mu.said {
		c.mu.replies, c.mu.queued = nil, 0
		c.roomLocked()
		return d, false
	}
	d = due{subs: c.mu.subs, gone: c.mu.gone, replies: c.mu.replies, pong: c.mu.pong, beat: c.mu.beat, ping: c.mu.ping,
		bye: c.mu.closing, code: c.mu.code, reason: c.mu.reason}
	c.mu.gone, c.mu.replies, c.mu.pong, c.mu.beat, c.mu.ping = nil, nil, nil, false, false
	c.mu.said, c.mu.bye = d.bye, d.bye
	if c.mu.queued > 0 || d.bye {
		c.mu.queued = 0
		c.roomLocked()
	}
	return d, true
}

// fill gathers frames until there are none or enough for one write: then it reports
// true. It is the writer's.
func (c *conn) fill(w *work) (more bool) {
	d, ok := c.take()
	if !ok {
		return false
	}
	for _, s := range d.gone {
		s.feed.Close()
	}
	c.s.metrics.subscriptions.Sub(float64(len(d.gone)))
	for _, r := range d.replies {
		c.send(r.kind, r.payload, r.kind == frame.Ack)
	}
	if d.ping || d.pong != nil {
		c.t.ping(d.pong, d.ping)
	}
	if d.bye {
		c.t.close(d.code, d.reason)
		return false
	}
	defer w.trim()
	more = c.events(w, d.subs)
	if d.beat && !more {
		w.known = w.known[:0]
		for _, s := range d.subs {
			w.known = append(w.known, known{s.id, s.reached})
		}
		w.buf = appendHeartbeat(w.buf[:0], time.Now(), w.known)
		c.send(frame.Heartbeat, w.buf, true)
	} else if d.beat {
		c.mu.Lock()
		c.mu.beat = true
		c.mu.Unlock()
	}
	return more
}

func (c *conn) send(kind string, payload []byte, advances bool) {
	c.t.frame(kind, payload, advances)
	c.s.metrics.frames[kind].Inc()
}

// events gathers those of all subscriptions until there is enough for a write; true: there
// is more. None is left over here: what a client does not take stays with the queries.
func (c *conn) events(w *work, subs []*sub) (more bool) {
	// Whoever filled the last write is polled last, so that it does not starve the others.
	first := c.next
	for i := range subs {
		at := (first + i) % len(subs)
		s := subs[at]
		for {
			w.events = s.feed.Poll(w.events[:0])
			if len(w.events) == 0 {
				break
			}
			c.encode(w, s, w.events)
			clear(w.events) // here, since most polls give one of many
			if c.out.pending() >= chunk {
				c.next = at + 1
				return true
			}
		}
		if s.samples() { // all that it had is written
			s.cursor = s.feed.Since()
			s.reached = s.cursor
		}
		if err := s.feed.Err(); err != nil && !s.ended {
			s.ended = true
			c.send(frame.Error, errorFrame("", s.id, 0, err, true), false)
			c.drop(s)
		}
	}
	return false
}

// encode writes events.
func (c *conn) encode(w *work, s *sub, events []qlive.Event) {
	for i := range events {
		e := &events[i]
		kind, advances := frame.Data, false
		switch e.Kind {
		case qlive.SeriesKind:
			for defs := e.Series; len(defs) > 0; {
				defs = defs[c.series(w, s, defs):]
			}
			kind = ""
		case qlive.DataKind:
			if !s.samples() {
				s.reached = max(s.reached, e.Step.T)
				if e.Step.Rev > 0 {
					s.seen = max(s.seen, e.Step.T+int64(e.Step.Rev))
				}
				if e.Step.T > s.cursor {
					s.cursor, advances = e.Step.T, true
				}
			}
			if c.simple {
				w.buf = appendSimple(w.buf[:0], s, e.Step)
			} else {
				w.buf = appendData(w.buf[:0], s.id, e.Step)
			}
		case qlive.StaleKind:
			kind = frame.Stale
			w.buf = appendStale(w.buf[:0], s.id, e.T, e.Stale)
			for _, n := range e.Stale {
				delete(s.labels, n)
			}
		case qlive.DroppedKind:
			kind = frame.Dropped
			s.missed(e.Dropped.To)
			c.s.metrics.dropped.Add(float64(e.Dropped.Count))
			w.buf = appendDropped(w.buf[:0], s.id, e.Dropped)
		case qlive.ErrorKind:
			kind = frame.Error
			s.missed(e.T)
			w.buf = append(w.buf[:0], errorFrame("", s.id, e.T, e.Err, false)...)
		}
		if kind != "" {
			c.send(kind, w.buf, advances)
		}
	}
}

// series writes one frame of label sets and returns how many.
func (c *conn) series(w *work, s *sub, defs []qlive.SeriesDef) (n int) {
	w.buf, n = appendSeries(w.buf[:0], s.id, defs)
	if s.labels != nil {
		for _, d := range defs[:n] {
			s.labels[d.ID] = d.Labels
		}
	}
	c.send(frame.Series, w.buf, false)
	return n
}

// work is what a writer needs while it gathers and writes.
type work struct {
	buf    []byte
	events []qlive.Event
	known  []known
	send   socket.Sender
}

// trim gives back what one large frame has taken.
func (w *work) trim() {
	if cap(w.buf) > 4*chunk {
		w.buf = nil
	}
}
