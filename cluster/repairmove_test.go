package cluster

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestRepairWhileMoving: a block of a shard's leader is damaged while a replica moves, before
// the new replica fetches it, or when the two are compared. It is repaired from another
// replica, and the move goes on to its end.
func TestRepairWhileMoving(t *testing.T) {
	for _, in := range []Phase{PhaseAdding, PhaseVerifying} {
		t.Run(string(in), func(t *testing.T) {
			c := newTrio(t, Options{TrailingLogs: 1}) // so that the blocks are fetched
			c.mustWrite("n1", 0, 500)
			c.checkAll()
			for name := range c.peers {
				c.flush(name)
			}
			leader, from := c.leaderOf(2) // a shard that holds series
			c.join("n4", "n1")
			var once sync.Once
			c.setOnPhase(func(_ *Node, m *Move) {
				if m.Phase != in {
					return
				}
				once.Do(func() {
					for _, b := range c.blocksOf(leader) {
						if strings.Contains(b, filepath.Join("shards", "002")) {
							flipByte(t, b, func(int64) int64 { return 40 }) // in a page of chunks
						}
					}
				})
			})
			if err := c.nodes[leader].node.MoveShard(t.Context(), 2, from, "n4"); err != nil {
				t.Fatal(err)
			}
			c.planEnds(PlanDone)
			c.sameHashes() // reads the block, if another led meanwhile
			c.repaired(leader, 1)
			c.await("members", func() error { return c.members(leader) })
			c.checkAll()
		})
	}
}
