package cluster

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestClosedComesNoMore: what a peer has not taken when its connection is closed does not
// come to it later.
func TestClosedComesNoMore(t *testing.T) {
	l, err := TCP{}.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := TCP{}.Dial(t.Context(), "", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	sent := 0
	for b := make([]byte, 1<<20); err == nil; { // until neither machine takes more
		if err := conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		var n int
		n, err = conn.Write(b)
		sent += n
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	came, err := io.Copy(io.Discard, peer)
	if !errors.Is(err, syscall.ECONNRESET) || came >= int64(sent) {
		t.Errorf("%d of %d bytes came, and then %v", came, sent, err)
	}
}
