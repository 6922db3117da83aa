package cluster

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// frames reads what comes through a connection: the numbers of the messages in each frame,
// and when it came.
func frames(t *testing.T, conn net.Conn, begin time.Time) <-chan frameSeen {
	out := make(chan frameSeen, 100)
	go func() {
		defer close(out)
		r := bufio.NewReader(conn)
		for {
			var head [frameHeader]byte
			if _, err := io.ReadFull(r, head[:]); err != nil {
				return
			}
			body := make([]byte, binary.LittleEndian.Uint32(head[:]))
			if _, err := io.ReadFull(r, body); err != nil {
				return
			}
			f := frameSeen{after: time.Since(begin)}
			if err := eachMessage(body, false, func(m *message) { f.ids = append(f.ids, m.id) }); err != nil {
				t.Error(err)
			}
			out <- f
		}
	}()
	return out
}

type frameSeen struct {
	ids   []uint64
	after time.Duration
}

func (f *frameSeen) is(after time.Duration, ids ...uint64) bool {
	return f.after == after && slices.Equal(f.ids, ids)
}

// TestExpect: a frame waits for the messages that are expected, but not for others, nor for
// long.
func TestExpect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		w := newWire(a, nil)
		wrote := make(chan error, 1)
		go func() { wrote <- w.write() }()
		begin := time.Now()
		got := frames(t, b, begin)
		next := func() frameSeen { f := <-got; return f }
		send := func(expected bool, ids ...uint64) {
			for _, id := range ids {
				m := &message{kind: kindAppend, id: id}
				fn := w.send
				if expected {
					fn = w.sendExpected
				}
				if err := fn(m); err != nil {
					t.Error(err)
				}
				time.Sleep(expectWait / 10)
			}
		}
		w.expect(3)
		send(true, 1, 2)
		send(false, 3) // goes along
		send(true, 4)
		if f := next(); !f.is(3*expectWait/10, 1, 2, 3, 4) {
			t.Errorf("three that are expected and one beside them: %v", f)
		}
		at := time.Since(begin)
		w.expect(3)
		send(true, 5, 6)
		if f := next(); !f.is(at+expectWait, 5, 6) {
			t.Errorf("the third does not come: %v", f)
		}
		at = time.Since(begin)
		send(true, 7) // it comes later than it was expected
		if f := next(); !f.is(at, 7) {
			t.Errorf("one that is expected no more: %v", f)
		}
		at = time.Since(begin)
		w.expect(2)
		for _, id := range []uint64{8, 9} {
			if err := w.sendExpected(&message{kind: kindAppend, id: id}); err != nil {
				t.Error(err)
			}
		}
		w.expect(1) // of something else, which must not hold up what is whole
		if f := next(); !f.is(at, 8, 9) {
			t.Errorf("two that were whole before a third was expected: %v", f)
		}
		w.close()
		if err := <-wrote; err == nil {
			t.Error("writing ended without an error")
		}
	})
}

// TestAnswersTogether: requests of one frame that wait for the log are answered in one frame.
func TestAnswersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		w := newWire(a, nil)
		go func() { _ = w.write() }()
		got := frames(t, b, time.Now())
		var body []byte
		for id := range uint64(4) {
			k := kindAppend
			if id == 3 {
				k = kindTerms
			}
			body = (&message{kind: k, id: id}).append(body)
		}
		with, err := requestsIn(body)
		if err != nil || with.open != 3 {
			t.Fatalf("%v, %v", with, err)
		}
		time.Sleep(time.Second) // the log takes its time
		for id := range uint64(3) {
			w.answer(&message{kind: kindAnswer, id: id}, with)
			time.Sleep(expectWait / 10)
		}
		if f := <-got; !f.is(time.Second+2*expectWait/10, 0, 1, 2) {
			t.Errorf("the answers came as %v", f)
		}
		w.close()
	})
}
