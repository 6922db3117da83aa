//go:build unix

package socket_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/strandline-db/strandline/server/socket"
)

// pair returns both ends of a connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

// TestTryWrite: it takes what fits, then nothing, and goes on once there is room; no byte is lost.
func TestTryWrite(t *testing.T) {
	w, r := pair(t)
	if err := w.SetWriteBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	raw := socket.Raw(w)
	var send socket.Sender
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i % 251)
	}
	sent := 0
	full := func() (wrote int) {
		for none := 0; none < 3; {
			n, err := send.TryWrite(raw, chunk[sent%251:])
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				none++
			}
			sent += n
			wrote += n
		}
		return wrote
	}
	got := 0
	read := func(n int) {
		buf := make([]byte, n)
		if _, err := io.ReadFull(r, buf); err != nil {
			t.Fatal(err)
		}
		for i, b := range buf {
			if b != byte((got+i)%251) {
				t.Fatalf("byte %d is %d", got+i, b)
			}
		}
		got += n
	}
	if full() == 0 {
		t.Fatal("nothing was taken")
	}
	read(sent)
	n := 0
	for n == 0 { // the acknowledgement may be on its way
		n = full()
	}
	read(n)
	_ = w.Close()
	if _, err := send.TryWrite(raw, chunk); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
}

func TestTryWriteToNobody(t *testing.T) {
	w, r := pair(t)
	if err := errors.Join(r.SetLinger(0), r.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(w); !errors.Is(err, syscall.ECONNRESET) { // the reset has come
		t.Fatalf("got %v", err)
	}
	var send socket.Sender
	if n, err := send.TryWrite(socket.Raw(w), []byte("x")); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %d %v", n, err)
	}
}
