package cluster

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestStaleAfterLeading: what a leader has that lost its majority is as old as the last
// word of that, not as what it heard when it last followed another.
func TestStaleAfterLeading(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	leader, err := c.nodes["n1"].node.leaderOf(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	g := c.nodes[leader].node.group(0)
	led := time.Now()
	c.await("a majority behind the leader", func() error {
		now := time.Now()
		if !g.leads() || g.staleness(now) >= now.Sub(led) {
			return errors.New("not since the write")
		}
		return nil
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != leader {
			c.stop(name)
		}
	}
	c.await("a follower that knows how old its data is", func() error {
		now := time.Now()
		if g.raft.State() == raft.Leader || g.staleness(now) > now.Sub(led) {
			return errors.New("leads, or does not know")
		}
		return nil
	})
}
