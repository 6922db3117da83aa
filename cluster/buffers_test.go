package cluster

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// TestWholeFrames: large frames and messages come through a connection unharmed beside each
// other, in buffers that are used again.
func TestWholeFrames(t *testing.T) {
	a, b := net.Pipe()
	var pool buffers
	from, to := newWire(a, &pool), newWire(b, &pool)
	to.lends = true
	wrote, read := make(chan error, 1), make(chan error, 1)
	go func() { wrote <- from.write() }()
	got := make(chan uint64)
	go func() {
		read <- to.read(func(m *message) {
			want := byte(m.id)
			if len(m.data) == 0 || bytes.Count(m.data, []byte{want}) != len(m.data) {
				t.Errorf("message %d came as %d bytes of something else", m.id, len(m.data))
			}
			if large := len(m.data) >= largeFrame; large != (m.frame != nil) {
				t.Errorf("message %d of %d bytes in a buffer: %v", m.id, len(m.data), m.frame != nil)
			}
			pool.put(m.frame)
			got <- m.id
		})
	}()
	seen := map[uint64]bool{}
	for id := uint64(1); id < 200; id += 2 {
		data := bytes.Repeat([]byte{byte(id + 1)}, largeFrame+int(id*1111))
		frame := append(pool.get(largeBuffer)[:answerRoom], data...)
		if err := sendPiece(from, id+1, frame); err != nil {
			t.Fatal(err)
		}
		if err := from.send(&message{kind: kindAnswer, id: id, data: bytes.Repeat([]byte{byte(id)}, int(id))}); err != nil {
			t.Fatal(err)
		}
		seen[<-got], seen[<-got] = true, true
	}
	if len(seen) != 200 {
		t.Errorf("%d messages came", len(seen))
	}
	from.close()
	to.close()
	if err := <-wrote; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := <-read; err == nil {
		t.Error("reading has ended without an error")
	}
}

// TestWholeFramesAreBounded: a peer that takes nothing makes no queue grow for ever.
func TestWholeFramesAreBounded(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	w := newWire(a, &buffers{})
	defer w.close()
	for range maxWhole {
		if err := sendPiece(w, 1, make([]byte, answerRoom+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sendPiece(w, 1, make([]byte, answerRoom+1)); !errors.Is(err, errQueueFull) {
		t.Fatal(err)
	}
}

// TestFetchRate: what a node fetches is within its rate, at once no more than a piece.
func TestFetchRate(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	f := newFetches(1)
	if err := f.limit.WaitN(ctx, maxFetch); err != nil {
		t.Fatal(err)
	}
	if err := f.limit.WaitN(ctx, maxFetch); err == nil {
		t.Fatal("a second piece came through at a byte a second")
	}
	if f := newFetches(0); f.limit != nil {
		t.Fatal("no rate is a limit")
	}
}
