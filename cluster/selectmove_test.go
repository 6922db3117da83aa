package cluster

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestMoveDuringSelect: a replica that moves away while it is being selected from is read
// where it went, and one that comes is read as well.
func TestMoveDuringSelect(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	var once atomic.Pointer[func()] // when n1 next reads a file of shard 0
	c.engine = func(name string, o *engine.Options) {
		if name != "n1" {
			return
		}
		o.FS = vfs.NewFault(o.FS, func(op vfs.Op) error {
			fn := once.Load()
			if fn != nil && op.Kind == vfs.OpRead && strings.Contains(op.Path, "shards/000") && once.CompareAndSwap(fn, nil) {
				(*fn)()
			}
			return nil
		})
	}
	c.startAll()
	c.mustWrite("n1", 0, 100)
	c.flush("n1")
	c.stop("n1") // so that no page is in memory
	c.start("n1")
	c.join("n4", "n1")
	c.mustWrite("n4", 100, 10)
	n1, moved := c.nodes["n1"].node, false
	move := func() {
		if err := n1.MoveShard(t.Context(), 0, "n1", "n4"); err != nil {
			t.Error(err)
			return
		}
		c.await("the replica to have left", func() error {
			if n1.holdsShard(0) {
				return fmt.Errorf("%+v", n1.currentMap().moves)
			}
			return nil
		})
		moved = true
	}
	once.Store(&move)
	c.check("n1")
	if !moved {
		t.Fatal("nothing of shard 0 was read")
	}
	c.planEnds(PlanDone)
	if err := n1.MoveShard(t.Context(), 0, "n4", "n1"); err != nil {
		t.Fatal(err)
	}
	for !n1.holdsShard(0) {
		c.check("n1")
		c.check("n4")
	}
	c.planEnds(PlanDone)
	c.checkAll()
	c.sameHashes()
}

// TestReadyWithMap: what a node can be asked for once it is ready includes the cluster's map.
func TestReadyWithMap(t *testing.T) {
	c := newTrio(t, Options{})
	for name, m := range c.nodes {
		c.await(name+" to be ready", m.node.Ready)
		if _, err := m.node.Propose(t.Context(), "", false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
