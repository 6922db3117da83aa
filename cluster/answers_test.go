package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
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

// TestSelectGivenUp: a selection that another node opens when nobody waits for it any more is
// closed.
func TestSelectGivenUp(t *testing.T) {
	a, b := net.Pipe()
	n := &Node{}
	l := newLink(n, "n1", true)
	close(l.tried)
	l.mu.w = newWire(a, &buffers{})
	n.mu.bulks = map[string]*link{"n1": l}
	asked, wrote := newWire(b, &buffers{}), make(chan error, 1)
	go func() { wrote <- l.mu.w.write() }()
	got, read := make(chan message, 1), make(chan error, 1)
	go func() { read <- asked.read(func(m *message) { got <- *m }) }()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := n.selectAt(ctx, synced{name: "n1"}, []int{0}, everything())
		ended <- err
	}()
	m := <-got
	cancel()
	if err := <-ended; m.kind != kindSelect || !errors.Is(err, context.Canceled) {
		t.Fatalf("asked with kind %d: %v", m.kind, err)
	}
	l.answer(&message{kind: kindAnswer, id: m.id, data: putUvarints(putBool(nil, false), 7, 0)})
	if len(l.mu.pending) != 1 {
		t.Fatal("nothing is asked any more")
	}
	if m := <-got; m.kind != kindClose || !slices.Equal(m.data, putUvarints(nil, 7)) {
		t.Errorf("kind %d with %v", m.kind, m.data)
	}
	l.mu.w.close()
	asked.close()
	<-wrote
	<-read
}

// TestRemoteLimit: what goes past a limit at another node has done so here.
func TestRemoteLimit(t *testing.T) {
	err := fmt.Errorf("%w: the answer has %d bytes", model.ErrLimit, maxFrame)
	if got := remoteError(err.Error()); !errors.Is(got, model.ErrLimit) {
		t.Error(got)
	}
}
