package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	c.await("a connection to n2", func() error { // the first ends when the cluster has formed
		if got := c.nodes["n1"].node.link("n2").awaited(); got != "n2" {
			return fmt.Errorf("of one that answers: %s", got)
		}
		return nil
	})
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

// TestEnterBesideRemoved: a node that runs although it was removed lets no other in, says so, and
// keeps none from entering by those that are there.
func TestEnterBesideRemoved(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n2")
	n2 := c.nodes["n2"].node
	c.mustWrite("n2", 0, 10)
	if _, err := n2.DrainNode(t.Context(), "n1", ""); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	if err := n2.RemoveNode(t.Context(), "n1", false); err != nil {
		t.Fatal(err)
	}
	n1 := c.nodes["n1"].node
	if err := n1.AwaitRemoval(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.await("three without n1", func() error {
		v, err := n2.askConfig(t.Context(), uint64(metaStream))
		if err == nil && (len(v.Servers) != 3 || slices.ContainsFunc(v.Servers, func(s serverView) bool { return !s.Voter })) {
			err = fmt.Errorf("%+v", v.Servers)
		}
		return err
	})
	b, err := json.Marshal(&entrant{Name: "n5", Incarnation: "5", Address: "n5:1", Shards: 4, PairLabel: new(string)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n1.answerEnter(t.Context(), b); err == nil || errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), "n1 was removed") {
		t.Errorf("%v", err)
	}
	c.stop("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	c.start("n3")
	c.await("n3 as a new one", func() error { return c.nodes["n3"].node.Ready() })
	c.check("n3")
}
