package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoNodeThere: who waits for a node says what there is instead.
func TestNoNodeThere(t *testing.T) {
	c := newTrio(t, Options{})
	stranger, err := memHost{c.net, "stranger:1"}.Listen("stranger:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Close() })
	go func() {
		for {
			conn, err := stranger.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	for at, want := range map[string]string{"stranger:1": errMute.Error(), "nobody:1": "connection refused"} {
		l := c.nodes["n1"].node.link(at)
		c.await("why there is no connection to "+at, func() error {
			if got := l.awaited(); !strings.HasPrefix(got, at+" (") || !strings.Contains(got, want) {
				return fmt.Errorf("%s", got)
			}
			return nil
		})
	}
	if got := c.nodes["n1"].node.link("n2").awaited(); got != "n2" {
		t.Errorf("of one that answers: %s", got)
	}
}

// TestMixedPeers: a node whose list has nodes of two clusters takes no place in either.
func TestMixedPeers(t *testing.T) {
	c, other := emptyTrio(t, Options{}, nil), emptyTrio(t, Options{}, nil)
	other.net = c.net
	other.peers = map[string]string{"n1": "o1:1", "n2": "o2:1", "n3": "o3:1"}
	c.startAll()
	other.startAll()
	c.stop("n2")
	if err := os.RemoveAll(filepath.Join(c.dir, "n2")); err != nil {
		t.Fatal(err)
	}
	right := c.peers["n3"]
	c.peers["n3"] = other.peers["n3"]
	if m, err := c.open("n2"); !errors.Is(err, ErrIdentity) {
		t.Errorf("%v", err)
		if err == nil {
			_ = m.db.Close()
		}
	}
	c.peers["n3"] = right
	c.start("n2")
	c.await("n2 in its own cluster", func() error { return c.nodes["n2"].node.Ready() })
	c.mustWrite("n2", 0, 10)
	c.checkAll()
}
