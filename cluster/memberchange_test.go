package cluster

import (
	"errors"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
)

// TestChangeOfMembersSeen: a change that was meant for members that are others by now is
// refused.
func TestChangeOfMembersSeen(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	lead, follower := c.leaderOf(0)
	leader, n := c.nodes[lead].node, c.nodes[follower].node
	v, err := leader.askConfig(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if v.Index == 0 {
		t.Fatal("the leader does not say at which entry the members are those")
	}
	if err := leader.changeGroup(t.Context(), 0, &groupChange{Demote: n.raftID, Prev: v.Index}); err != nil {
		t.Fatal(err)
	}
	if err := leader.changeGroup(t.Context(), 0, &groupChange{Remove: n.raftID, Prev: v.Index}); err == nil {
		t.Error("a change was made that was meant for members of before")
	}
}

// TestMembersTellCommitted: a leader tells of no change of its members that is in its log alone:
// who is to go would delete what it holds, and be a member still if the next leader overrules that.
func TestMembersTellCommitted(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	lead, follower := c.leaderOf(0)
	leader, gone := c.nodes[lead].node, c.nodes[follower].node
	disk := make(chan struct{})
	for _, m := range c.nodes {
		if m.node != leader {
			m.hang.Store(&disk)
		}
	}
	changed := make(chan error, 1)
	go func() { changed <- leader.changeGroup(t.Context(), 0, &groupChange{Remove: gone.raftID}) }()
	c.await("the change in the leader's log", func() error {
		for _, x := range leader.group(0).store.configurations.get() {
			if !slices.ContainsFunc(x.servers(), func(s raft.Server) bool { return s.ID == gone.raftID }) {
				return nil
			}
		}
		return errors.New("not yet")
	})
	v, err := gone.askConfig(t.Context(), 0)
	if err == nil && v.find(gone.raftID) == nil {
		t.Error("the leader tells of a change that no other log has")
	}
	for _, m := range c.nodes {
		m.hang.Store(nil)
	}
	close(disk)
	if err := <-changed; err != nil {
		t.Fatal(err)
	}
	c.await("the change", func() error {
		v, err := gone.askConfig(t.Context(), 0)
		if err == nil && v.find(gone.raftID) != nil {
			err = errors.New("not yet")
		}
		return err
	})
}
