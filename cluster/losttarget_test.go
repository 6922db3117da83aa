package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestTargetLosesFolder has a move's target lose its folder in each phase in which it is to be
// a member: the move begins anew with its next one, and its source stays until that one is
// what it was.
func TestTargetLosesFolder(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 100)
	c.flush("n1")
	c.join("n4", "n1")
	for _, in := range []Phase{PhaseCatchingUp, PhaseVerifying, PhasePromoting, PhaseHandover} {
		came, lost := make(chan struct{}), make(chan struct{})
		var once sync.Once
		c.setOnPhase(func(n *Node, m *Move) {
			if m.Phase == in {
				once.Do(func() {
					close(came)
					select {
					case <-lost:
					case <-n.ctx.Done():
					}
				})
			}
		})
		if err := c.nodes["n2"].node.MoveShard(t.Context(), 1, "n1", "n4"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-came:
		case <-time.After(30 * time.Second):
			t.Fatalf("the move never came to %s: %+v", in, c.nodes["n2"].node.currentMap().moves)
		}
		c.stop("n4")
		if err := os.RemoveAll(filepath.Join(c.dir, "n4")); err != nil {
			t.Fatal(err)
		}
		c.start("n4")
		c.await("the new folder", func() error {
			n4 := c.nodes["n4"].node
			if _, _, same := n4.registration(c.nodes["n2"].node.currentMap()); !same {
				return errors.New("the map has the old one")
			}
			return nil
		})
		c.setOnPhase(func(_ *Node, m *Move) {
			if m.Phase == PhaseRemoving && !c.nodes["n4"].node.group(1).votes(c.nodes["n4"].node.raftID) {
				t.Errorf("lost in %s: the source leaves before the new folder has a vote", in)
			}
		})
		close(lost)
		c.planEnds(PlanDone)
		c.await("members", func() error { return c.members("n2") })
		c.mustWrite("n3", 1000, 10)
		c.checkAll()
		c.sameHashes()
		if err := c.nodes["n2"].node.MoveShard(t.Context(), 1, "n4", "n1"); err != nil {
			t.Fatal(err)
		}
		c.planEnds(PlanDone)
	}
}

// TestMarkLost: a replica that does not know of a mark any more, or could not hash at it,
// is compared at another.
func TestMarkLost(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 100)
	n := c.nodes["n2"].node
	co := &coordinator{n: n}
	verify := func() error {
		m, err := n.freshMap(t.Context())
		if err != nil {
			return err
		}
		v, err := n.askConfig(t.Context(), 1)
		if err != nil {
			return err
		}
		m.plan = &Plan{ID: "test"}
		return co.verify(t.Context(), m, &Move{Shard: 1, To: "n3", Phase: PhaseVerifying}, v)
	}
	c.await("equal hashes", verify)
	marks := &c.nodes["n3"].node.group(1).marks
	for _, lose := range []func(){
		func() { marks.mu.kept = nil }, // as by a restart behind it
		func() { marks.mu.kept[len(marks.mu.kept)-1].err = fmt.Errorf("a damaged block") },
	} {
		marks.mu.Lock()
		lose()
		marks.mu.Unlock()
		c.await("equal hashes at another mark", verify)
	}
}
