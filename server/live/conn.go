package live

import (
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strandline-db/strandline/server/live/frame"
)

// States of a connection, as its writers see it.
const (
	idle   int32 = iota
	queued       // waits for a writer, once
	busy         // has one
	again        // has one, and something more to look at after
	dead
)

// transport gives frames the form of a WebSocket or of server-sent events. All but
// read are called by the connection's writer.
type transport interface {
	name() string
	// frame writes one frame; advances: a client that has it need not get it again.
	frame(kind string, payload []byte, advances bool)
	ping(pong []byte, ping bool)
	// close says goodbye, if the transport can; answers: the client does so too.
	close(code int, reason string)
	answers() bool
	// read takes what the client sends until it has ended, and says why.
	read() error
}

// conn is a client. Its writer is whoever took it from busy; its reader is one
// goroutine, which alone begins subscriptions, but for those that wait for a write.
type conn struct {
	s      *Server
	t      transport
	out    gather
	remote string
	may    func() bool // whether the client may still have the connection
	simple bool        // speaks the older form
	state  atomic.Int32
	wakeFn func()
	room   chan struct{} // capacity 1: the replies were taken, or never will be
	bucket int
	writes atomic.Uint64 // so that a writer that hangs is seen
	beats  beats

	next int // the subscription to begin with; the writer's
	mu   struct {
		sync.Mutex
		subs    []*sub     // copied on write
		waiting []*waiting // subscriptions that are to begin
		gone    []*sub     // to be closed
		replies []reply
		queued  int // bytes in replies
		pong    []byte
		beat    bool
		ping    bool
		phase   phase
		closing bool
		said    bool // the goodbye is among what is to be written
		bye     bool // and what follows on it is still to be done
		code    int
		reason  string
		cut     bool
		ended   bool // there is no reader any more
	}
}

// phase is how far a connection has come to its socket.
type phase uint8

const (
	making   phase = iota // its handler runs, and alone may end it
	promised              // fasthttp will give it its socket, or has lost it: the ticker may end it
	claimed               // it has the socket, not yet in its hands: whoever got it may end it
	attached              // it has a reader
)

// promiseTime is how long fasthttp may take to hand over a socket, which it does at once or
// not at all.
const promiseTime = 10 * time.Second

// beats is what the server's ticker, alone, knows of a connection.
type beats struct {
	n       int
	offered bool      // since the last beat
	without time.Time // since when its socket was seen to be promised
	writes  uint64
	since   time.Time // from when on nothing was written, though a writer had it; zero: none has
}

// reply is a frame that is not of a subscription's events.
type reply struct {
	kind    string
	payload []byte
}

// wake puts the connection on the writers' queue, once. It never blocks.
func (c *conn) wake() {
	for {
		switch s := c.state.Load(); s {
		case idle:
			if c.state.CompareAndSwap(idle, queued) {
				c.s.ready <- c
				return
			}
		case busy:
			if c.state.CompareAndSwap(busy, again) {
				return
			}
		default:
			return
		}
	}
}

// turn sends what there is. own: the goroutine is for this connection alone, and may wait.
func (c *conn) turn(w *work, own bool) {
	for {
		more := c.out.pending() >= chunk || c.fill(w)
		if c.isCut() {
			c.out.discard()
			more = false
		} else if !c.flush(w, own) {
			c.s.wait(c)
			return
		}
		if c.settle() {
			c.finish()
			return
		}
		if !more || !own {
			if more || !c.state.CompareAndSwap(busy, idle) {
				c.state.Store(queued)
				c.s.ready <- c
			}
			return
		}
	}
}

// flush writes what has gathered. own: it waits for the client. Else it never does;
// false: the client does not take all of it now.
func (c *conn) flush(w *work, own bool) (all bool) {
	var n int
	var err error
	for more := true; more; more = own && !all && err == nil {
		if own {
			n, all, err = c.out.flush(c.s.opts.WriteTimeout)
		} else {
			n, all, err = c.out.try(&w.send)
		}
		c.s.metrics.bytes.Add(float64(n))
		c.writes.Add(1)
	}
	if err == nil {
		return all
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.s.metrics.cut.WithLabelValues("slow").Inc()
		c.s.opts.Logger.Debug("live client cut: it takes nothing", "remote", c.remote)
	}
	c.mu.Lock()
	c.mu.cut = true
	c.roomLocked()
	c.mu.Unlock()
	c.out.cut()
	return true
}

// settle does what is due once all is written, and reports whether the connection is over.
func (c *conn) settle() bool {
	c.mu.Lock()
	over := c.mu.ended && (c.mu.cut || c.out.pending() == 0)
	bye := c.mu.bye
	c.mu.bye = false
	c.mu.Unlock()
	if bye && !over {
		if c.t.answers() {
			c.out.lingerOn()
		} else {
			_ = c.out.Close() // nothing can be done about a failure; the reader ends either way
		}
	}
	return over
}

// finish gives everything back. There is no reader, and nobody else writes.
func (c *conn) finish() {
	c.state.Store(dead)
	c.mu.Lock()
	all := append(c.mu.gone, c.mu.subs...)
	c.mu.gone, c.mu.subs = nil, nil
	c.mu.Unlock()
	for _, s := range all {
		s.feed.Close()
	}
	c.s.metrics.subscriptions.Sub(float64(len(all)))
	_ = c.out.Close() // it may be closed already
	c.s.remove(c)
}

// advance takes the connection from one phase to the next, unless it was ended or is to be.
func (c *conn) advance(from phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.phase != from || c.mu.ended || c.mu.cut {
		return false
	}
	if c.mu.phase++; c.mu.phase == attached {
		c.s.readers.Go(c.run)
	}
	return true
}

// abandon ends a connection that is in one of the phases without a reader. It may be called
// again.
func (c *conn) abandon(in ...phase) {
	c.mu.Lock()
	first := slices.Contains(in, c.mu.phase) && !c.mu.ended
	if first {
		c.mu.ended, c.mu.cut = true, true
	}
	c.mu.Unlock()
	if first {
		c.release()
	}
}

// release lets the writers have the connection for the first time.
func (c *conn) release() {
	c.state.Store(queued)
	c.s.ready <- c
}

// run is the reader's goroutine.
func (c *conn) run() {
	err := c.t.read()
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.isClosing() {
		c.s.metrics.cut.WithLabelValues("silent").Inc()
	}
	c.endWaits()
	c.mu.Lock()
	c.mu.ended = true
	c.mu.Unlock()
	c.wake()
}

func (c *conn) isCut() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.cut
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.closing || c.mu.cut
}

// reply queues a frame.
func (c *conn) reply(kind string, payload []byte) {
	c.mu.Lock()
	c.replyLocked(reply{kind, payload})
	c.mu.Unlock()
	c.wake()
}

func (c *conn) replyLocked(r reply) {
	c.mu.replies = append(c.mu.replies, r)
	c.mu.queued += len(r.payload)
}

// maxQueued is how many bytes of replies may wait before the client's next message does.
const maxQueued = chunk

// awaitRoom waits until the client takes what it was answered, or is cut. It is the
// reader's: a client that asks and does not listen is not asked for more.
func (c *conn) awaitRoom() {
	for {
		c.mu.Lock()
		ok := c.mu.queued < maxQueued || c.mu.cut || c.mu.said
		c.mu.Unlock()
		if ok {
			return
		}
		<-c.room
	}
}

// roomLocked lets awaitRoom look again; what it looks at has changed.
func (c *conn) roomLocked() {
	select {
	case c.room <- struct{}{}:
	default:
	}
}

// close says goodbye after what is queued. The first call counts.
func (c *conn) close(code int, reason string) {
	c.mu.Lock()
	if !c.mu.closing {
		c.mu.closing, c.mu.code, c.mu.reason = true, code, reason
	}
	c.mu.Unlock()
	c.wake()
}

// drain tells the client to go elsewhere, and closes.
func (c *conn) drain(reason string) {
	c.reply(frame.Drain, drainFrame(reason))
	c.close(closeGoingAway, reason)
}

// kill ends a client that does not go.
func (c *conn) kill() {
	c.abandon(promised)
	c.mu.Lock()
	c.mu.cut = true // in the phases before, whoever has it sees that
	has := c.mu.phase == attached
	c.roomLocked()
	c.mu.Unlock()
	if has {
		c.out.cut()
		c.wake()
	}
}

// offer is the ticker's: a heartbeat goes with whatever is sent next, if that is before
// the beat that follows. A write of its own costs as much as one of data.
func (c *conn) offer() {
	c.beats.n++
	c.beats.offered = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.beat = true
	c.mu.ping = c.mu.ping || c.beats.n%4 == 0
}

// beat is the ticker's: a heartbeat is due, unless it went with something else. It
// gives up a connection that was promised a socket and has none, and one whose writer hangs:
// below TLS, that a socket takes what it said it would is the system's word only.
func (c *conn) beat(now time.Time) {
	if !c.beats.offered {
		c.offer()
	}
	c.beats.offered = false
	c.mu.Lock()
	at, due := c.mu.phase, c.mu.beat
	c.mu.Unlock()
	switch {
	case at == promised:
		if c.beats.without.IsZero() {
			c.beats.without = now
		}
		if now.Sub(c.beats.without) > promiseTime {
			c.abandon(promised)
		}
	case at != attached:
	case c.hangs(now):
		c.s.metrics.cut.WithLabelValues("slow").Inc()
		c.kill()
	case due:
		c.wake()
	}
}

func (c *conn) hangs(now time.Time) bool {
	state, n := c.state.Load(), c.writes.Load()
	if state != busy && state != again || n != c.beats.writes {
		c.beats.writes, c.beats.since = n, time.Time{}
		return false
	}
	if c.beats.since.IsZero() {
		c.beats.since = now
	}
	return now.Sub(c.beats.since) > 2*c.s.opts.WriteTimeout
}
