package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestDrain: a node that is to stop hands over all that it leads, but asks Raft for no
// transfer where one has just failed, and gets nothing again.
func TestDrain(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	n := c.nodes["n2"].node
	leads := func() (out []*group) {
		for _, g := range n.ordered() {
			if g.leads() {
				out = append(out, g)
			}
		}
		return out
	}
	c.await("something to hand over", func() error {
		if len(leads()) == 0 {
			return fmt.Errorf("n2 leads nothing")
		}
		return nil
	})
	kept := leads()[0]
	kept.handing.Lock()
	until := time.Now().Add(time.Hour)
	kept.handing.not = until
	kept.handing.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	n.Drain(ctx)
	if ctx.Err() != nil {
		t.Fatal(ctx.Err())
	}
	kept.handing.Lock()
	if kept.handing.not != until {
		t.Errorf("a transfer that was refused puts off the next from %v to %v", until, kept.handing.not)
	}
	kept.handing.not = time.Time{}
	kept.handing.Unlock()
	c.await("n2 to lead nothing", func() error {
		n.Drain(ctx) // what has not caught up takes nothing
		if got := leads(); len(got) > 0 {
			return fmt.Errorf("it leads %d groups", len(got))
		}
		return nil
	})
	c.mustWrite("n2", 20, 10)
	c.checkAll()
}

// TestForcedDownToTwo: a dead node that stands last in the metadata's group and is removed by
// force leaves two, of which one is to vote: the dead one must go before a living one gives its
// vote up, or the metadata had lost its majority for good.
func TestForcedDownToTwo(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.stop("n1")
	if err := os.RemoveAll(filepath.Join(c.dir, "n1")); err != nil {
		t.Fatal(err)
	}
	c.start("n1") // which comes in anew, as the last
	c.await("the new folder's membership", func() error { return c.nodes["n1"].node.Ready() })
	c.stop("n1")
	n2 := c.nodes["n2"].node
	c.await("the removal", func() error { return n2.RemoveNode(t.Context(), "n1", true) })
	c.await("one voter", func() error {
		v, err := n2.askConfig(t.Context(), uint64(metaStream))
		if err == nil && (len(v.Servers) != 2 || v.Servers[0].Voter == v.Servers[1].Voter) {
			err = fmt.Errorf("%+v", v)
		}
		return err
	})
	if _, err := n2.freshMap(t.Context()); err != nil {
		t.Error(err)
	}
	c.mustWrite("n3", 20, 10)
	c.checkAll()
}

// TestDrainBesideADeadNode: with one of three dead, the others can't do without each other. To
// drain one takes no vote from it, in the shards nor in the metadata, and the status says why;
// it goes on once the dead one is back.
func TestDrainBesideADeadNode(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.await("the map", c.nodes["n3"].node.Ready)
	c.stop("n2")
	n3 := c.nodes["n3"].node
	c.await("the drain", func() error {
		_, err := n3.DrainNode(t.Context(), "n1", "")
		return err
	})
	c.await("the reason", func() error {
		m, err := n3.freshMap(t.Context())
		if err != nil {
			return err
		}
		if x := m.moves[0]; !strings.Contains(x.Error, "can't do without n1 while n2 is away") {
			return fmt.Errorf("%+v", x)
		}
		return nil
	})
	c.mustWrite("n3", 20, 10)
	c.checkAll()
	c.start("n2")
	c.planEnds(PlanDone)
	c.mustWrite("n3", 40, 10)
	c.checkAll()
	c.sameHashes()
}

// TestDrainsBesideEachOther: of two drains at the same time one is refused, and leaves its node as
// it was.
func TestDrainsBesideEachOther(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	n1 := c.nodes["n1"].node
	c.await("n4 in the map", func() error {
		m, err := n1.freshMap(t.Context())
		if err == nil && len(m.members(stateMember)) != 4 {
			err = fmt.Errorf("%v", m.nodes)
		}
		return err
	})
	var drains errgroup.Group
	var refusals [2]error
	for i, name := range []string{"n2", "n3"} {
		p, err := n1.Propose(t.Context(), name, true)
		if err != nil {
			t.Fatal(err)
		}
		drains.Go(func() error {
			_, refusals[i] = c.nodes[name].node.DrainNode(t.Context(), name, p.ID)
			return nil
		})
	}
	_ = drains.Wait() // refusals has what came
	if (refusals[0] == nil) == (refusals[1] == nil) {
		t.Errorf("%v", refusals)
	}
	m, err := n1.freshMap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"n2", "n3"} {
		if draining := m.nodes[name].State == stateDraining; draining != (refusals[i] == nil) {
			t.Errorf("%s is %s after: %v", name, m.nodes[name].State, refusals[i])
		}
	}
	c.planEnds(PlanDone)
}
