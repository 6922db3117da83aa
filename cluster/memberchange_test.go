package cluster

import (
	"errors"
	"slices"
	"sync"
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

// TestRemovedByMistake: a replica that was taken out of its group although it is to lie where it
// lies gets its vote back.
func TestRemovedByMistake(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	for _, id := range []uint64{0, uint64(metaStream)} {
		var n *Node
		c.await("the removal from "+groupName(id), func() error {
			lead, follower := c.leaderOf(id)
			n = c.nodes[follower].node
			if _, err := n.freshMap(t.Context()); err != nil {
				return err
			}
			return c.nodes[lead].node.changeGroup(t.Context(), id, &groupChange{Remove: n.raftID})
		})
		c.await("the vote in "+groupName(id), func() error {
			v, err := n.askConfig(t.Context(), id)
			if err == nil && !v.votes(n.raftID) {
				err = errors.New("none")
			}
			return err
		})
	}
	c.mustWrite("n1", 100, 10)
	c.checkAll()
	c.sameHashes()
}

// TestRemovalOverruled: a move does not end while its source is a member, also when it has left
// before.
func TestRemovalOverruled(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	from := c.nodes["n1"].node.raftID
	var once sync.Once
	c.setOnPhase(func(n *Node, m *Move) {
		if m.Phase == PhaseDeleting {
			once.Do(func() {
				if err := n.changeGroup(n.ctx, 1, &groupChange{Add: from}); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if err := c.nodes["n2"].node.MoveShard(t.Context(), 1, "n1", "n4"); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	c.await("members", func() error {
		v, err := c.nodes["n2"].node.askConfig(t.Context(), 1)
		if err == nil && v.find(from) != nil {
			t.Fatalf("the move is done, and its source is a member: %+v", v.Servers)
		}
		return err
	})
	c.checkAll()
	c.sameHashes()
}

// TestRemovedStaysOut: a node that was removed while it follows the metadata without a vote does
// not take itself in again.
func TestRemovedStaysOut(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	n4 := c.nodes["n4"].node
	c.await("the fourth node", n4.Ready)
	n := c.nodes["n1"].node
	if err := n.RemoveNode(t.Context(), "n4", false); err != nil {
		t.Fatal(err)
	}
	c.await("word of the removal", func() error {
		v, err := n.askConfig(t.Context(), uint64(metaStream))
		if err == nil && (v.find(n4.raftID) != nil || !n4.removed() || n4.meta().has(n4.raftID)) {
			err = errors.New("none")
		}
		return err
	})
	n4.reconcile()
	v, err := n.askConfig(t.Context(), uint64(metaStream))
	if err != nil {
		t.Fatal(err)
	}
	if v.find(n4.raftID) != nil {
		t.Error("a removed node has had itself taken in again")
	}
}
