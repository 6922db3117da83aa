package cluster

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
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

// TestTwoPeers: no cluster forms of two nodes, and one that has become as small starts with a list of
// them.
func TestTwoPeers(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	two := func(o *Options) *Options {
		o.Peers = map[string]string{"n1": c.peers["n1"], "n2": c.peers["n2"]}
		o.EnsureDefaults()
		return o
	}
	c.stop("n1")
	for dir, want := range map[string]bool{filepath.Join(c.dir, "n1"): true, t.TempDir(): false} {
		o := two(&Options{Name: "n1", Listen: c.peers["n1"], Dir: dir, FS: vfs.OS{}})
		if err := o.Validate(); err != nil {
			t.Error(err)
		}
		if _, err := loadIdentity(o); want != (err == nil) {
			t.Errorf("%s: %v", dir, err)
		}
		_, err := loadIdentity(&Options{Name: "n1", Dir: dir, FS: vfs.OS{}}) // as of a start with another list
		if err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(o); want != (err == nil) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
