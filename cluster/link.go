package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// errPeer wraps what a peer answered as an error.
var errPeer = errors.New("peer")

// errDown: there is no connection to the peer.
var errDown = fmt.Errorf("%w: no connection to the node", model.ErrUnavailable)

// errMute: where a node should be is something else, or one that shows this one the door.
var errMute = errors.New("it hangs up without a word: this is not where a node listens for others (its cluster-listen), or it refuses this node, and its log says why")

// errSilent: the peer has not answered for some time.
var errSilent = fmt.Errorf("%w: the node does not answer", model.ErrUnavailable)

// silence is how long a peer may answer nothing while requests wait, not even a hello.
const silence = 1500 * time.Millisecond

// link is the connection to one peer on which our requests go. It connects again by
// itself; what waits when a connection ends fails with errDown.
type link struct {
	node  *Node
	to    string        // a node's name, or an address
	gone  bool          // nobody listens there; run's own
	shut  int           // attempts in a row that found the door shut; run's own
	bulk  bool          // for what is large, in frames of lent buffers
	plain atomic.Bool   // the peer is of an earlier version, which knows no stamps
	tried chan struct{} // closed when the first attempt to connect has ended
	mu    struct {
		sync.Mutex
		w       *wire // nil: not connected
		next    uint64
		pending map[uint64]request
		heard   time.Time // when the last answer came, or when something began to wait for one
		why     error     // the last connection ended, or there was none
	}
}

// request waits for an answer.
type request struct {
	kind  kind
	done  func([]byte, error)
	frame *[]byte // see send
}

func newLink(n *Node, to string, bulk bool) *link {
	l := &link{node: n, to: to, bulk: bulk, tried: make(chan struct{})}
	l.mu.pending = map[uint64]request{}
	return l
}

// run keeps the link connected until ctx ends.
func (l *link) run(ctx context.Context) {
	const first, most = 20 * time.Millisecond, 500 * time.Millisecond
	wait := first
	tried := sync.OnceFunc(func() { close(l.tried) })
	defer tried()
	for ctx.Err() == nil {
		began := time.Now()
		err := l.session(ctx, tried)
		l.ended(err)
		tried()
		if refused := errors.Is(err, syscall.ECONNREFUSED); refused && !l.gone {
			l.node.peerGone(l.to)
			l.gone = true
		} else if !refused {
			l.gone = false
		}
		if time.Since(began) > most {
			wait = first
		}
		l.node.opts.Logger.Log(ctx, l.levelOf(err), "cluster: connection ended", "peer", l.to, "err", oneLine(err))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, most)
	}
}

// shutOften is how many attempts in a row must find the door shut for a warning: a node that
// is just starting or stopping may shut it once.
const shutOften = 3

// levelOf is how a connection's end is logged. That a node is down is for its own log to say;
// one that is there and lets this one not in, or is not who it should be, is warned of here:
// it may be this node that is set up wrongly.
func (l *link) levelOf(err error) slog.Level {
	if !errors.Is(err, errMute) && !errors.Is(err, ErrTLS) {
		l.shut = 0
		return slog.LevelDebug
	}
	if l.shut++; l.shut >= shutOften && l.node.shut.Allow() {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// oneLine is an error's text without the line breaks of errors.Join.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// session is one connection from dial to end; tried is called when it stands.
func (l *link) session(ctx context.Context, tried func()) error {
	conn, name, err := l.dial(ctx)
	if err != nil {
		return err
	}
	w := newWire(conn, &l.node.buffers)
	w.lends = l.bulk
	defer w.close()
	if err := l.node.identity.greet(conn, l.node.addr, name); err != nil {
		return errors.Join(errMute, err)
	}
	stop := context.AfterFunc(ctx, w.close)
	defer stop()
	l.plain.Store(false)
	l.mu.Lock()
	l.mu.w = w
	l.mu.Unlock()
	tried()
	wrote := make(chan error, 1)
	go func() { wrote <- w.write(); w.close() }()
	watched := make(chan struct{})
	ended := make(chan struct{})
	go func() { defer close(watched); l.watch(w, ended) }()
	mute := errMute
	err = w.read(func(m *message) { mute = nil; l.answer(m) })
	if mute != nil && l.silent(silence) { // it did not hang up: watch did
		mute = errSilent
	}
	close(ended)
	<-watched
	w.close()
	return errors.Join(mute, err, <-wrote)
}

// ended fails what waits for a connection that has ended.
func (l *link) ended(why error) {
	l.mu.Lock()
	l.mu.w, l.mu.why = nil, why
	lost := l.mu.pending
	l.mu.pending = map[uint64]request{}
	l.mu.Unlock()
	for _, r := range lost {
		r.done(nil, errDown)
	}
}

// awaited names who does not answer, and says why there is no connection.
func (l *link) awaited() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.w != nil || l.mu.why == nil {
		return l.to
	}
	return fmt.Sprintf("%s (%s)", l.to, oneLine(l.mu.why))
}

// dial connects to the first address that answers. The error is ECONNREFUSED only if
// nobody listens at any of them.
func (l *link) dial(ctx context.Context) (_ net.Conn, name string, err error) {
	if !strings.Contains(l.to, ":") {
		name = l.to
	}
	for _, addr := range l.node.book.of(l.to) {
		dctx, cancel := context.WithTimeout(ctx, time.Second)
		conn, derr := l.node.opts.Network.Dial(dctx, name, addr)
		cancel()
		if derr == nil {
			return conn, name, nil
		}
		if err == nil || !errors.Is(derr, syscall.ECONNREFUSED) {
			err = derr
		}
	}
	if err == nil {
		err = fmt.Errorf("%w: no address of node %s is known", errDown, l.to)
	}
	return nil, name, err
}

// watch closes a connection on which requests wait and no answer comes: after a
// partition TCP alone would take much longer to notice, and to try again.
func (l *link) watch(w *wire, ended <-chan struct{}) {
	tick := time.NewTicker(silence / 2)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		if l.silent(silence) {
			w.close()
			return
		}
		if l.silent(silence / 3) { // what it was asked may take long, this does not
			l.start(kindHello, 0, nil, func([]byte, error) {})
		}
	}
}

func (l *link) answer(m *message) {
	l.mu.Lock()
	l.mu.heard = time.Now()
	r := l.mu.pending[m.id]
	delete(l.mu.pending, m.id)
	if r.frame != nil {
		*r.frame = m.frame
	}
	l.mu.Unlock()
	switch {
	case r.done == nil: // given up meanwhile
	case m.kind == kindError:
		r.done(nil, remoteError(string(m.data)))
	default:
		r.done(m.data, nil)
	}
}

// remoteError gives a peer's error its type back where callers ask for it.
func remoteError(text string) error {
	for _, e := range []error{errUnheard, model.ErrUnavailable, model.ErrOverloaded, model.ErrFailed, model.ErrReadOnly, model.ErrLimit, model.ErrConflict, ErrIdentity, errBehind, errMessage} {
		if len(text) >= len(e.Error()) && text[:len(e.Error())] == e.Error() {
			return fmt.Errorf("%w%s (from another node)", e, text[len(e.Error()):])
		}
	}
	return fmt.Errorf("%w: %s", errPeer, text)
}

// start sends a request; done is called once, from another goroutine or this one.
func (l *link) start(k kind, group uint64, data []byte, done func([]byte, error)) (id uint64) {
	return l.send(&message{kind: k, group: group, data: data}, nil, done)
}

// send is start for a message whose number it sets. If frame is not nil it puts the frame of
// the answer, if that may be given to buffers, where frame points before it calls done.
func (l *link) send(m *message, frame *[]byte, done func([]byte, error)) (id uint64) {
	l.mu.Lock()
	w := l.mu.w
	if w == nil {
		l.mu.Unlock()
		done(nil, errDown)
		return 0
	}
	if len(l.mu.pending) == 0 {
		l.mu.heard = time.Now()
	}
	l.mu.next++
	m.id, id = l.mu.next, l.mu.next
	l.mu.pending[id] = request{m.kind, done, frame}
	l.mu.Unlock()
	send := w.send
	if m.logged() {
		send = w.sendExpected
	}
	if err := send(m); err != nil {
		if l.forget(id) {
			done(nil, fmt.Errorf("%w: %w", model.ErrUnavailable, err))
		}
	}
	return id
}

// expect tells the connection that so many requests with something for the peer's log are
// about to come, so that they share a frame.
func (l *link) expect(n int) {
	l.mu.Lock()
	w := l.mu.w
	l.mu.Unlock()
	if w != nil {
		w.expect(n)
	}
}

func expect(links map[*link]int) {
	for l, n := range links {
		if n > 1 {
			l.expect(n)
		}
	}
}

// forget gives a request up; false if its answer has come.
func (l *link) forget(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, waiting := l.mu.pending[id]
	delete(l.mu.pending, id)
	return waiting
}

// leave gives a request up, but for its answer, which is for late; false if that has come.
func (l *link) leave(id uint64, late func([]byte, error)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, waiting := l.mu.pending[id]
	if waiting {
		l.mu.pending[id] = request{kind: r.kind, done: late}
	}
	return waiting
}

type reply struct {
	data []byte
	err  error
}

// call sends a request and waits for the answer, or for ctx.
func (l *link) call(ctx context.Context, k kind, group uint64, data []byte) ([]byte, error) {
	return l.callFor(ctx, nil, nil, k, group, data)
}

// callFor is call, with frame as in send. late, if it is not nil, is called with an answer that
// comes when ctx has ended, or with why none does.
func (l *link) callFor(ctx context.Context, frame *[]byte, late func([]byte, error), k kind, group uint64, data []byte) ([]byte, error) {
	select {
	case <-l.tried: // a new link is given the time to connect
	case <-ctx.Done():
	}
	ch := make(chan reply, 1)
	id := l.send(&message{kind: k, group: group, data: data}, frame, func(b []byte, err error) { ch <- reply{b, err} })
	select {
	case r := <-ch:
		return r.data, r.err
	case <-ctx.Done():
		if late == nil {
			l.forget(id)
		} else if !l.leave(id, late) {
			r := <-ch
			late(r.data, r.err)
		}
		return nil, fmt.Errorf("%w: no answer from %s: %w", model.ErrUnavailable, l.to, context.Cause(ctx))
	}
}

// silent tells whether there is no connection, or one on which nothing has come for some
// time although something waits.
func (l *link) silent(wait time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.w == nil || len(l.mu.pending) > 0 && time.Since(l.mu.heard) > wait
}

// giveUpWrites ends the writes that wait for a peer that has been silent for some time:
// they can be sent elsewhere.
func (l *link) giveUpWrites(wait time.Duration) {
	if !l.silent(wait) {
		return
	}
	l.mu.Lock()
	var lost []request
	for id, r := range l.mu.pending {
		if r.kind.written() {
			delete(l.mu.pending, id)
			lost = append(lost, r)
		}
	}
	l.mu.Unlock()
	for _, r := range lost {
		r.done(nil, errSilent)
	}
}

// up tells whether there is a connection.
func (l *link) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.w != nil
}

// drop ends the connection; another follows.
func (l *link) drop() {
	l.mu.Lock()
	w := l.mu.w
	l.mu.Unlock()
	if w != nil {
		w.close()
	}
}
