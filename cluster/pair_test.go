package cluster

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/strandline-db/strandline/engine"
)

// TestPairLabel: nodes that form a cluster must place series alike, and one that enters
// does as the cluster does, whatever it was started with.
func TestPairLabel(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	c.engine = func(name string, o *engine.Options) {
		if name != "n3" {
			o.PairLabel = "__replica__"
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.ctx = ctx
	var wg sync.WaitGroup
	var refused atomic.Int32
	for name := range c.peers {
		wg.Go(func() {
			m, err := c.open(name)
			if err == nil {
				t.Errorf("%s is part of a cluster", name)
				_ = m.db.Close()
			}
			if errors.Is(err, ErrIdentity) {
				refused.Add(1)
				cancel() // the others would wait for it
			}
		})
	}
	wg.Wait()
	if refused.Load() == 0 {
		t.Error("nobody says why they form no cluster")
	}

	c = emptyTrio(t, Options{}, nil)
	c.engine = func(name string, o *engine.Options) {
		if o.PairLabel = "__replica__"; name == "n4" {
			o.PairLabel = "other"
		}
	}
	c.startAll()
	c.join("n4", "n2")
	for name, m := range c.nodes {
		if got := m.node.replicas.PairLabel(); got != "__replica__" {
			t.Errorf("%s places by %q", name, got)
		}
	}
	c.mustWrite("n4", 0, 20)
	c.checkAll()
	c.stop("n4")
	c.start("n4")
	if got := c.nodes["n4"].node.replicas.PairLabel(); got != "__replica__" {
		t.Errorf("after a restart it places by %q", got)
	}
	c.mustWrite("n4", 20, 20)
	c.checkAll()
}
