package cluster

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// On a connection, in both directions, after the preface (see hello.go):
//
//	frame:   length (4 bytes), CRC-32C of the body (4 bytes), body
//	body:    messages one after another
//	message: kind (1 byte), uvarint request number, uvarint group, uvarint length, bytes
//
// Integers are little-endian. Requests go one way and answers the other; a pair of
// nodes has two connections. A frame is what had gathered when the writer came
// round, so that many groups share a system call and wake the peer once. What belongs
// together, as the entries of a round do, is expected: the frame waits for the last of it.
const (
	frameHeader = 8
	maxFrame    = 256 << 20
	maxQueued   = 64 << 20         // bytes that wait for a connection
	errorRoom   = 1 << 20          // of answers besides that are errors
	maxWhole    = 4 * fetchesAhead // whole frames that wait for a connection
	maxSpare    = 4 << 20          // of a buffer that is kept for the next frame
	expectWait  = 500 * time.Microsecond
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kind of a message.
type kind byte

const (
	kindAnswer kind = iota + 1
	kindError       // an answer: the text of an error
	kindHello
	kindAppend
	kindHeartbeat // see beat.go
	kindVote
	kindPreVote
	kindInstall
	kindTimeoutNow
	kindPropose // of a node of an earlier version: without a stamp
	kindFetch
	kindTerms
	kindReadIndex
	kindLeader
	kindConfig
	kindChange
	kindEnter
	kindAllow
	kindVerify
	kindHashOf
	kindSync
	kindSelect
	kindRead
	kindClose
	kindNames
	kindStatus
	kindHolds
	_ // kindTails, of before it told the indexes of configurations
	kindOffer
	kindRelease
	kindFeed      // opens a feed; see feedwire.go
	kindFeedPoll  // waits a little for what it brings
	kindFeedNudge // makes the poll that waits answer now
	kindFeedClose
	kindAsk  // a request of the HTTP API that this node answers; see ask.go
	kindWork // begins work on shards; see work.go
	kindWorkPoll
	kindWorkEnd
	kindCut      // begins to flush a shard and offer it; the rest is as of kindWork
	kindRelay    // as kindPropose, for a node that can't reach the leader
	kindAnnounce // a kindAppend without entries: what is committed
	kindNode     // what the map says of a node; see replaced.go
	kindTails    // how far a node's logs go; see doubt.go
	kindWrite    // a proposal; see fence.go
	kindRelayed  // as kindWrite, for a node that can't reach the leader
)

// message is one message; its data is the receiver's to keep.
type message struct {
	kind  kind
	id    uint64
	group uint64
	data  []byte
	with  *together           // what came in the same frame; nil: nothing that is answered at the same time
	frame []byte              // what data is a part of, if the receiver may give it to buffers; or nil
	put   func([]byte) []byte // if not nil, appends the data, to be sent without a copy of it
}

// append encodes the message. The length of what put brings is known too late for it to
// take no more bytes than it must: it takes putLength.
func (m *message) append(b []byte) []byte {
	b = putUvarints(append(b, byte(m.kind)), m.id, m.group)
	if m.put == nil {
		return putBytes(room(b, len(m.data)+binary.MaxVarintLen64), m.data)
	}
	at := len(b)
	b = m.put(append(b, make([]byte, putLength)...))
	n := len(b) - at - putLength
	for i := range putLength - 1 {
		b[at+i] = byte(n>>(7*i)) | 0x80
	}
	b[at+putLength-1] = byte(n >> (7 * (putLength - 1)))
	return b
}

const putLength = 5 // holds 34 bits, and maxFrame has 28

// errQueueFull: a peer takes no bytes.
var errQueueFull = errors.New("the connection takes no more")

// errNoRoom stands in for an answer that does not fit.
var errNoRoom = fmt.Errorf("%w: the answer does not fit on its way: %w", model.ErrOverloaded, errQueueFull)

// wire writes and reads the frames of one connection.
type wire struct {
	conn net.Conn
	wake chan struct{} // capacity 1
	pool *buffers      // for large frames
	// lends: large frames are read into buffers of the pool. Otherwise each has a buffer of
	// its own, as small as can be: a group keeps the entries in it for long.
	lends bool
	mu    struct {
		sync.Mutex
		buf    []byte // the next frame's body behind room for the header
		whole  []wholeFrame
		coming int       // messages that are expected
		until  time.Time // and for how long a frame waits for them
		due    bool      // all that were expected have come: the frame waits for no others
		closed bool
	}
}

func newWire(conn net.Conn, pool *buffers) *wire {
	return &wire{conn: conn, wake: make(chan struct{}, 1), pool: pool}
}

// together is requests of one frame whose answers will come at about the same time: they
// wait for the log. Under the lock of the wire that answers.
type together struct {
	open  int // answers to come
	begun bool
}

// expect has the next frame wait, expectWait at most, for so many messages that go by
// sendExpected.
func (w *wire) expect(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expectLocked(n)
}

func (w *wire) expectLocked(n int) {
	now := time.Now()
	if now.After(w.mu.until) {
		w.mu.coming = 0 // what has not come does not come
	}
	w.mu.coming += n
	w.mu.until = now.Add(expectWait)
}

// send queues a message.
func (w *wire) send(m *message) error { return w.queue(m, nil, false) }

// sendExpected queues one of the messages that expect has spoken of.
func (w *wire) sendExpected(m *message) error { return w.queue(m, nil, true) }

// answer queues the answer to one of the requests of with; the first has the frame wait for
// the others. Who asked waits for it, perhaps without an end: in place of one that does not
// fit goes an error, and if not even that does, the connection ends.
func (w *wire) answer(m *message, with *together) {
	err := w.queue(m, with, with != nil)
	if errors.Is(err, errQueueFull) && m.kind != kindError {
		err = w.queue(&message{kind: kindError, id: m.id, data: []byte(errNoRoom.Error())}, with, with != nil)
	}
	if err != nil {
		w.close()
	}
}

func (w *wire) queue(m *message, with *together, expected bool) error {
	w.mu.Lock()
	if w.mu.closed {
		w.mu.Unlock()
		return net.ErrClosed
	}
	most := maxQueued
	if m.kind == kindError {
		most += errorRoom
	}
	if len(w.mu.buf) > most {
		w.mu.Unlock()
		return errQueueFull
	}
	wake := len(w.mu.buf) == 0
	if wake {
		w.mu.buf = append(w.mu.buf, make([]byte, frameHeader)...)
	}
	w.mu.buf = m.append(w.mu.buf)
	if with != nil && !with.begun {
		with.begun = true
		w.expectLocked(with.open)
	}
	if expected && w.mu.coming > 0 {
		if w.mu.coming--; w.mu.coming == 0 {
			w.mu.due, wake = true, true
		}
	}
	w.mu.Unlock()
	if wake {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// wholeFrame is a sealed frame, from some byte of a buffer on.
type wholeFrame struct {
	buf  []byte
	from int
}

// sendWhole queues a frame. On success it is the wire's, which gives it to its pool. Such
// frames go in order among themselves, not with messages.
func (w *wire) sendWhole(f wholeFrame) error {
	w.mu.Lock()
	if w.mu.closed {
		w.mu.Unlock()
		return net.ErrClosed
	}
	if len(w.mu.whole) >= maxWhole {
		w.mu.Unlock()
		return errQueueFull
	}
	w.mu.whole = append(w.mu.whole, f)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return nil
}

// seal fills in the header of a frame.
func seal(frame []byte) {
	binary.LittleEndian.PutUint32(frame, uint32(len(frame)-frameHeader))
	binary.LittleEndian.PutUint32(frame[4:], crc32.Checksum(frame[frameHeader:], castagnoli))
}

// write sends what is queued until the connection fails or is closed.
func (w *wire) write() error {
	var spare []byte
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		<-w.wake
		for had := 0; ; {
			wait, size, err := w.gathering(had)
			if err != nil {
				return err
			}
			if wait > 0 {
				timer.Reset(wait)
				select {
				case <-w.wake:
					timer.Stop()
				case <-timer.C:
				}
			} else if size == had {
				break
			} else { // let others add to the frame for as long as they do
				had = size
				runtime.Gosched()
			}
		}
		w.mu.Lock()
		frame, whole := w.mu.buf, w.mu.whole
		w.mu.buf, w.mu.whole, w.mu.due = spare[:0], nil, false
		w.mu.Unlock()
		if len(frame) > 0 {
			seal(frame)
			if _, err := w.conn.Write(frame); err != nil {
				return err
			}
		}
		if spare = nil; cap(frame) <= maxSpare {
			spare = frame
		}
		for _, f := range whole {
			if _, err := w.conn.Write(f.buf[f.from:]); err != nil {
				return err
			}
			w.pool.put(f.buf)
		}
	}
}

// gathering returns for how long the next frame waits for what is expected, and how large
// it is; had, if nothing is to be added.
func (w *wire) gathering(had int) (wait time.Duration, size int, _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.mu.closed:
		return 0, 0, net.ErrClosed
	case w.mu.due:
		return 0, had, nil
	case w.mu.coming > 0:
		if wait = time.Until(w.mu.until); wait > 0 {
			return wait, 0, nil
		}
		w.mu.coming = 0 // they do not come
	}
	return 0, len(w.mu.buf), nil
}

// read hands every message to fn until the connection fails.
func (w *wire) read(fn func(*message)) error {
	r := bufio.NewReaderSize(w.conn, 64<<10)
	var head [frameHeader]byte
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n > maxFrame {
			return fmt.Errorf("%w: a frame of %d bytes", errMessage, n)
		}
		var body []byte // messages keep parts of it
		if w.lends && n >= largeFrame {
			body = w.pool.get(int(n))
		} else {
			body = make([]byte, n)
		}
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			return fmt.Errorf("%w: checksum mismatch", errMessage)
		}
		with, err := requestsIn(body)
		if err != nil {
			return err
		}
		err = eachMessage(body, w.lends, func(m *message) {
			if m.logged() {
				m.with = with
			}
			fn(m)
		})
		if err != nil {
			return err
		}
	}
}

// logged tells whether a request is answered when a log has made something durable.
func (m *message) logged() bool {
	return m.kind == kindAppend || m.kind == kindWrite || m.kind == kindPropose
}

// written tells whether a kind of request is somebody's write.
func (k kind) written() bool {
	return k == kindWrite || k == kindRelayed || k == kindPropose || k == kindRelay
}

// unstamped is the kind under which a node of an earlier version knows it.
func (k kind) unstamped() kind {
	if k == kindRelayed {
		return kindRelay
	}
	return kindPropose
}

// requestsIn counts the requests of a frame that are to be answered together.
func requestsIn(body []byte) (*together, error) {
	n := 0
	err := eachMessage(body, false, func(m *message) {
		if m.logged() {
			n++
		}
	})
	if n < 2 {
		return nil, err
	}
	return &together{open: n}, err
}

func eachMessage(body []byte, lent bool, fn func(*message)) error {
	for d := (decoder{b: body}); len(d.b) > 0; {
		m := message{kind: kind(d.b[0])}
		d.b = d.b[1:]
		m.id, m.group = d.uvarint(), d.uvarint()
		m.data = d.bytes()
		if d.bad {
			return errMessage
		}
		if lent && len(m.data) >= largeFrame && len(d.b) == 0 {
			m.frame = body
		}
		fn(&m)
	}
	return nil
}

// ended tells whether the connection has been closed.
func (w *wire) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.closed
}

// close ends both directions. Idempotent.
func (w *wire) close() {
	w.mu.Lock()
	was := w.mu.closed
	w.mu.closed = true
	w.mu.Unlock()
	if was {
		return
	}
	_ = w.conn.Close() // what matters has failed already, or nobody waits any more
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
