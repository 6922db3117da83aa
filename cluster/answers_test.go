package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/strandline-db/strandline/shard/model"
)

// TestAnswersThatDoNotFit: who waits for an answer for which the connection has no room is told
// so, and if there is no end of those, the connection ends.
func TestAnswersThatDoNotFit(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	w := newWire(a, &buffers{})
	w.answer(&message{kind: kindAnswer, id: 1, data: make([]byte, maxQueued)}, nil)
	w.answer(&message{kind: kindAnswer, id: 2, data: []byte("some samples")}, nil)
	var got []message
	if err := eachMessage(w.mu.buf[frameHeader:], false, func(m *message) { got = append(got, *m) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1].id != 2 || got[1].kind != kindError || !errors.Is(remoteError(string(got[1].data)), model.ErrOverloaded) {
		t.Errorf("%d messages wait, the last of kind %d", len(got), got[len(got)-1].kind)
	}
	for i := 0; !w.ended(); i++ {
		if len(w.mu.buf) > 2*maxQueued {
			t.Fatalf("%d answers, and no end", i)
		}
		w.answer(&message{kind: kindError, data: make([]byte, 4<<10)}, nil)
	}
}

// TestStopTellsNoErrors: what a request meets because its node stops is not told as its error:
// another node may serve it.
func TestStopTellsNoErrors(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	w := newWire(a, &buffers{})
	defer w.close()
	ctx, cancel := context.WithCancel(t.Context())
	respond := responder(ctx, w, &message{id: 1})
	cancel()
	respond(nil, ctx.Err())
	if len(w.mu.buf) > 0 || !w.ended() {
		t.Errorf("%d bytes wait for the peer; ended: %t", len(w.mu.buf), w.ended())
	}
}

// asked is the other end of a link.
type asked struct {
	n    *Node
	link *link // to n1
	got  chan message
}

func newAsked(t *testing.T) *asked {
	a, b := net.Pipe()
	x := &asked{n: &Node{}, got: make(chan message, 2)}
	x.link = newLink(x.n, "n1", true)
	close(x.link.tried)
	x.link.mu.w = newWire(a, &buffers{})
	x.n.mu.bulks = map[string]*link{"n1": x.link}
	peer := newWire(b, &buffers{})
	var wg sync.WaitGroup
	wg.Go(func() { _ = x.link.mu.w.write() })
	wg.Go(func() { _ = peer.read(func(m *message) { x.got <- *m }) })
	t.Cleanup(func() {
		x.link.mu.w.close()
		peer.close()
		wg.Wait()
	})
	return x
}

// selectTwo opens two selections.
func (x *asked) selectTwo(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	go func() {
		sels, err := x.n.selectAt(ctx, synced{name: "n1"}, []int{0}, []*model.SelectRequest{everything(), everything()})
		model.CloseAll(sels)
		ended <- err
	}()
	return ended
}

// TestSelectGivenUp: selections that another node opens when nobody waits for them any more
// are closed.
func TestSelectGivenUp(t *testing.T) {
	x := newAsked(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := x.selectTwo(ctx)
	m := <-x.got
	cancel()
	if err := <-ended; m.kind != kindSelect || !errors.Is(err, context.Canceled) {
		t.Fatalf("asked with kind %d: %v", m.kind, err)
	}
	x.link.answer(&message{kind: kindAnswer, id: m.id, data: putUvarints(putBool(nil, false), 7, 0, 8, 0)})
	x.closed(t, 7, 8)
}

// TestSelectMalformed: what an answer has opened is closed if there is more in it than that.
func TestSelectMalformed(t *testing.T) {
	x := newAsked(t)
	sels, ended := []*model.Selection(nil), make(chan error, 1)
	go func() {
		var err error
		sels, err = x.n.selectAt(t.Context(), synced{name: "n1"}, []int{0}, []*model.SelectRequest{everything()})
		ended <- err
	}()
	m := <-x.got
	x.link.answer(&message{kind: kindAnswer, id: m.id, data: putUvarints(putBool(nil, false), 7, 0, 8)})
	if err := <-ended; !errors.Is(err, errMessage) || sels != nil {
		t.Fatalf("%d selections: %v", len(sels), err)
	}
	x.closed(t, 7)
}

// closed fails if the selections with these numbers are not closed.
func (x *asked) closed(t *testing.T, ids ...uint64) {
	t.Helper()
	for range ids {
		m := <-x.got
		if id := (&decoder{b: m.data}).uvarint(); m.kind != kindClose || !slices.Contains(ids, id) {
			t.Errorf("kind %d with %v", m.kind, m.data)
		}
	}
}

// TestSelectAtEarlierVersion: a node that knows only one selection at a time is asked for one
// after another.
func TestSelectAtEarlierVersion(t *testing.T) {
	x := newAsked(t)
	ended := x.selectTwo(t.Context())
	m := <-x.got
	x.link.answer(&message{kind: kindError, id: m.id, data: []byte(errMessage.Error())})
	for id := range uint64(2) {
		m := <-x.got
		d := &decoder{b: m.data}
		d.uvarint()
		if _, _ = d.selectRequest(); m.kind != kindSelect || d.end() != nil {
			t.Fatalf("kind %d with %v", m.kind, m.data)
		}
		x.link.answer(&message{kind: kindAnswer, id: m.id, data: putUvarints(putBool(nil, false), 7+id, 0)})
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	x.closed(t, 7, 8)
}

// TestNoSuchPlace: no message makes a node look before the first series of a selection.
func TestNoSuchPlace(t *testing.T) {
	for _, at := range [][3]uint64{{math.MaxUint64, 0, 0}, {0, math.MaxUint64, 0}, {0, 0, 1 << 63}} {
		for _, keys := range []bool{true, false} {
			_, err := (&Node{}).answerRead(nil, putUvarints(putBool(putUvarints(nil, 1), keys), at[:]...))
			if !errors.Is(err, errMessage) {
				t.Errorf("%v: %v", at, err)
			}
		}
	}
}

// TestRemoteLimit: what goes past a limit at another node has done so here.
func TestRemoteLimit(t *testing.T) {
	err := fmt.Errorf("%w: the answer has %d bytes", model.ErrLimit, maxFrame)
	if got := remoteError(err.Error()); !errors.Is(got, model.ErrLimit) {
		t.Error(got)
	}
}
