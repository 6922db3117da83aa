package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// leading returns how many groups a node leads.
func (c *trio) leading(name string) (n int) {
	for _, g := range c.nodes[name].node.ordered() {
		if g.leads() {
			n++
		}
	}
	return n
}

// leads waits until a node leads something, or nothing.
func (c *trio) leads(name string, some bool) {
	c.t.Helper()
	c.await(name+" leads", func() error {
		if n := c.leading(name); (n > 0) != some {
			return fmt.Errorf("%d groups", n)
		}
		return nil
	})
}

// TestFullDisk: a node whose disk is nearly full hands over what it leads, follows, and
// leads again when there is room.
func TestFullDisk(t *testing.T) {
	disks := &memDisks{}
	c := newTrioOn(t, Options{}, disks.of)
	c.leads("n1", true)
	c.mustWrite("n1", 0, 10)
	disk := disks.of("n1").(*vfs.MemFS)
	disk.SetFree(1 << 20)
	c.leads("n1", false)
	if err := c.write("n1", 10, 1); !errors.Is(err, model.ErrReadOnly) {
		t.Fatal(fmt.Errorf("a write at the full node: %w", err))
	}
	c.mustWrite("n2", 20, 10)
	c.checkAll()
	disk.SetFree(1 << 40)
	// A full node may win an election too, and lead until it has handed over: leading
	// alone does not say that it has seen the room.
	c.await("n1 takes writes again", func() error {
		if c.nodes["n1"].db.Stats().ReadOnly {
			return model.ErrReadOnly
		}
		return nil
	})
	c.leads("n1", true)
	c.mustWrite("n1", 30, 10)
	c.checkAll()
}

// TestFullTarget: a node whose disk is nearly full is given no replica; the move waits for
// room, or can be cancelled.
func TestFullTarget(t *testing.T) {
	disks := &memDisks{}
	c := newTrioOn(t, Options{}, disks.of)
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	disk := disks.of("n4").(*vfs.MemFS)
	full := func(want bool, free uint64) {
		t.Helper()
		disk.SetFree(free)
		c.await("word of the disk", func() error {
			if is := c.nodes["n4"].db.Stats().ReadOnly; is != want {
				return fmt.Errorf("read-only: %v", is)
			}
			return nil
		})
	}
	n2 := c.nodes["n2"].node
	for _, end := range []PlanState{PlanCancelled, PlanDone} {
		full(true, 1<<20)
		if err := n2.MoveShard(t.Context(), 1, "n1", "n4"); err != nil {
			t.Fatal(err)
		}
		c.await("why the move waits", func() error {
			m, err := n2.freshMap(t.Context())
			if err == nil && !strings.Contains(m.moves[0].Error, "disk of n4 is nearly full") {
				err = fmt.Errorf("plan %+v, moves %+v", m.plan, m.moves)
			}
			return err
		})
		if end == PlanCancelled {
			if err := n2.SetPlan(t.Context(), PlanCancelling); err != nil {
				t.Fatal(err)
			}
		} else {
			full(false, 1<<40)
		}
		c.planEnds(end)
		c.await("members", func() error { return c.members("n2") })
	}
	c.mustWrite("n2", 20, 10)
	c.checkAll()
	c.sameHashes()
}
