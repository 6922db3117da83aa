package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// whole tells whether a node is a voter of all groups that the map gives it, and of the
// metadata.
func (n *Node) whole() bool {
	m := n.currentMap()
	for i := range m.shards {
		if m.shards[i].on(n.name) && !(n.holdsShard(i) && n.group(uint64(i)).votes(n.raftID)) {
			return false
		}
	}
	return m.seeded && n.meta().votes(n.raftID)
}

// join starts a node that enters the cluster by another.
func (c *trio) join(name, by string) {
	c.t.Helper()
	c.mu.Lock()
	c.peers[name] = name + ":1"
	c.mu.Unlock()
	c.joining[name] = c.peers[by]
	c.start(name)
}

// await waits until what is asked for is so.
func (c *trio) await(what string, ok func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = ok(); err == nil {
			return
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}

func (c *trio) setOnPhase(fn func(*Node, *Move)) { c.onPhase.Store(&fn) }

// planEnds waits for the plan under way.
func (c *trio) planEnds(want PlanState) {
	c.t.Helper()
	c.await("the plan's end", func() error {
		for _, m := range c.nodes {
			x, err := m.node.freshMap(context.Background())
			switch {
			case err != nil:
				return err
			case x.plan == nil || x.plan.State != want:
				return fmt.Errorf("%s: plan %+v, moves %+v", m.node.name, x.plan, x.moves)
			}
		}
		return nil
	})
}

// sameHashes compares all replicas of every shard at the same index, and those with the
// map.
func (c *trio) sameHashes() {
	c.t.Helper()
	c.await("equal hashes", func() error {
		seen := map[int]Hash{}
		count := map[int]int{}
		for name, m := range c.nodes {
			hs, err := m.node.Hashes(context.Background())
			if err != nil {
				return err
			}
			for _, h := range hs {
				if x, ok := seen[h.Shard]; ok && x.Index != h.Index {
					return fmt.Errorf("shard %d: %s is at %d, another at %d", h.Shard, name, h.Index, x.Index)
				} else if ok && x != h {
					c.t.Fatalf("shard %d at %d: %s has %s, another %s", h.Shard, h.Index, name, h.Hash, x.Hash)
				}
				seen[h.Shard] = h
				count[h.Shard]++
			}
		}
		for name, m := range c.nodes {
			for i, s := range m.node.currentMap().shards {
				if len(s.Replicas) != count[i] {
					return fmt.Errorf("%s: shard %d is on %v, and %d nodes have it", name, i, s.Replicas, count[i])
				}
			}
		}
		return nil
	})
}

// TestReadyVotes: a node is not ready while it lacks a vote that it should have, however good
// its data is.
func TestReadyVotes(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	n := c.nodes["n3"].node
	for _, id := range []uint64{1, uint64(metaStream)} {
		c.await("readiness", n.Ready)
		c.await("the end of the vote", func() error {
			v, err := n.askConfig(t.Context(), id)
			if err != nil {
				return err
			}
			if v.Leader == n.name {
				return errors.Join(errBehind, n.changeGroup(t.Context(), id, &groupChange{Transfer: "*"}))
			}
			return n.changeGroup(t.Context(), id, &groupChange{Demote: n.raftID, Prev: v.Index})
		})
		c.await("the vote", func() error {
			before, err := n.voting(id), n.Ready()
			if err == nil && !before && !n.voting(id) {
				t.Fatalf("ready without a vote of %s", groupName(id))
			}
			if !before {
				return errors.New("none yet")
			}
			return err
		})
	}
}

// TestFourthNode: a node enters, holds nothing, serves all; gets a shard by a move, and
// the one that gave it away has nothing left of it and serves it as well.
func TestFourthNode(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 50)
	c.flush("n1")
	c.mustWrite("n2", 50, 10)
	c.join("n4", "n2")
	if near, _ := c.nodes["n4"].node.split(); len(near) > 0 {
		t.Fatalf("the new node holds %v", near)
	}
	c.mustWrite("n4", 60, 10)
	c.checkAll()
	if err := c.nodes["n4"].node.MoveShard(t.Context(), 2, "n1", "n4"); err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n4", 70, 10)
	c.planEnds(PlanDone)
	c.checkAll()
	c.sameHashes()
	if near, _ := c.nodes["n4"].node.split(); !slices.Equal(near, []int{2}) {
		t.Errorf("the new node holds %v", near)
	}
	c.await("the files' end", func() error {
		if s := c.nodes["n1"].node.identity.get().Groups[2]; s != "" {
			return fmt.Errorf("n1 has a replica of state %s", s)
		}
		return nil
	})
	for _, name := range []string{"n4", "n1"} {
		c.stop(name)
		c.mustWrite("n2", 80, 10)
		c.start(name)
		c.mustWrite(name, 90, 10)
	}
	c.checkAll()
	c.sameHashes()
}

// TestLostFolderAfterMove: a node that has lost its folder becomes a member again of what lies
// on it now, not of what it held when the cluster formed, as the past of the map has it.
func TestLostFolderAfterMove(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	if err := c.nodes["n1"].node.MoveShard(t.Context(), 2, "n3", "n4"); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	c.await("the shard off n3", func() error { return c.hostsOnly("n3", 0, 1, 3) })
	c.stop("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	c.start("n3")
	n3 := c.nodes["n3"].node
	c.await("the shards that lie there", func() error {
		for _, i := range []int{0, 1, 3} {
			if !n3.holdsShard(i) || !n3.group(uint64(i)).votes(n3.raftID) {
				return fmt.Errorf("shard %d is not whole", i)
			}
		}
		return nil
	})
	c.await("word of the shard's leader", func() error {
		v, err := n3.askConfig(t.Context(), 2)
		if err == nil && v.find(n3.raftID) != nil {
			t.Errorf("n3 is a member of shard 2: %+v", v)
		}
		return err
	})
	c.await("nothing of the shard at n3", func() error { return c.hostsOnly("n3", 0, 1, 3) })
	c.mustWrite("n3", 10, 10)
	c.checkAll()
	c.sameHashes()
	if err := n3.changeGroup(t.Context(), 0, &groupChange{Remove: n3.raftID}); err != nil {
		t.Fatal(err)
	}
	if err := n3.changeGroup(t.Context(), 0, &groupChange{Promote: n3.raftID}); !errors.Is(err, errBehind) {
		t.Errorf("a vote for one that is no member any more: %v", err)
	}
}

// hostsOnly tells whether a node has replicas of these shards and of no other.
func (c *trio) hostsOnly(name string, shards ...int) error {
	me := c.nodes[name].node.identity.get()
	for i := range c.nodes[name].node.replicas.Len() {
		if has := me.Groups[uint64(i)] != ""; has != slices.Contains(shards, i) {
			return fmt.Errorf("%s has replicas of %v", name, me.Groups)
		}
	}
	return nil
}

// TestNoVoteWhileLeaving: a replica that asks whether it is to go takes no vote meanwhile: it
// would go with what it had acknowledged, and come back empty under the same id.
func TestNoVoteWhileLeaving(t *testing.T) {
	x := &noopTap{release: make(chan struct{})}
	release := sync.OnceFunc(func() { close(x.release) })
	c := newTrio(t, Options{tap: x})
	t.Cleanup(release) // before the nodes are stopped
	c.mustWrite("n1", 0, 10)
	old, _ := c.leaderOf(0)
	x.held.Store(true)
	c.stop(old) // the next leader can't tell of the members before its first entry
	_, name := c.leaderOf(0)
	n := c.nodes[name].node
	var over atomic.Bool
	asked := make(chan error, 1)
	go func() {
		var err error
		for !over.Load() {
			if err = n.leaveIfGone(0); err == nil {
				break
			}
		}
		asked <- err
	}()
	c.await("the vote to be refused", func() error {
		if err := n.answerAllow(0); !errors.Is(err, errNoReplica) {
			return fmt.Errorf("it was taken: %v", err)
		}
		return nil
	})
	over.Store(true)
	release()
	if err := <-asked; err == nil {
		t.Fatal("a member has left")
	}
	if err := n.answerAllow(0); err != nil {
		t.Error(err)
	}
	c.start(old)
	c.mustWrite(name, 10, 10)
	c.checkAll()
}

// TestAnnounceWithoutVote: a member without a vote is told of commits as the voters are, not
// only by Raft after its CommitTimeout: linearizable reads there and moves wait for it.
func TestAnnounceWithoutVote(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	c.await("the fourth node", c.nodes["n4"].node.Ready)
	c.await("an announcement to it", func() error {
		for _, m := range c.nodes {
			if g := m.node.meta(); g.leads() && g.has(c.nodes["n4"].node.raftID) {
				index := g.raft.CommitIndex()
				g.trans.told.change("n4", func(f *toldOne) { *f = toldOne{} })
				g.announceTo(place{Term: g.raft.CurrentTerm(), Index: index}, "n4")
				if !g.trans.told.knows("n4", index) {
					return errors.New("there is none")
				}
				return nil
			}
		}
		return errors.New("no leader has it as a member")
	})
}
