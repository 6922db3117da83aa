package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"
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
