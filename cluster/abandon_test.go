package cluster

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/strandline-db/strandline/engine"
)

// TestAbandon: a replica that ends answers every proposal that waits in it, each once.
func TestAbandon(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	for _, name := range []string{"n1", "n2", "n3"} {
		n := c.nodes[name].node
		var g *group
		c.await("a shard to lead", func() error {
			for _, x := range n.ordered() {
				if x.id != uint64(metaStream) && x.leads() {
					g = x
					return nil
				}
			}
			return errNotLeader
		})
		op := []byte{}
		c.net.isolate(c.peers[name], true) // nothing gets a majority
		var answers sync.WaitGroup
		var twice atomic.Int64
		propose := func() {
			answers.Add(1)
			var once atomic.Bool
			g.submit(&proposal{op: op, done: func(uint64, engine.Result, error) {
				if !once.CompareAndSwap(false, true) {
					twice.Add(1)
					return
				}
				answers.Done()
			}})
		}
		for range 20 {
			propose()
		}
		ended := make(chan error, 1)
		go func() { ended <- n.stopGroup(g.id) }()
		for g.ctx.Err() == nil { // and while it ends
			propose()
		}
		propose()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		answers.Wait()
		if n := twice.Load(); n > 0 {
			t.Errorf("%d proposals were answered twice", n)
		}
		c.net.isolate(c.peers[name], false)
		c.stop(name)
		c.start(name)
		c.check(name)
	}
}
