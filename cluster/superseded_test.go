package cluster

import (
	"errors"
	"testing"

	"github.com/strandline-db/strandline/engine"
)

// cutOf is a cut that ends as it says.
type cutOf struct{ err error }

func (c cutOf) persist(engine.Mark) error { return c.err }

func (cutOf) release() {}

// TestCutSuperseded: a cut that an install has overtaken is no snapshot, for Raft would have it
// as its last one behind the newer; and it does not fail the node.
func TestCutSuperseded(t *testing.T) {
	disk := errors.New("the disk is gone")
	for err, fails := range map[error]bool{nil: false, engine.ErrSuperseded: false, disk: true} {
		failed := false
		c := &fsmCut{f: &fsm{fail: func(error) { failed = true }}, c: cutOf{err}}
		if got := c.Persist(&sink{}); !errors.Is(got, err) || failed != fails {
			t.Errorf("a cut that ends with %v: %v, and the node has failed: %t", err, got, failed)
		}
	}
}

// TestMetaCutSuperseded: the metadata's cut does not go back when one that was taken before an
// install is written after it: its log begins behind the newer one.
func TestMetaCutSuperseded(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	g := c.nodes["n1"].node.meta()
	var at engine.Mark
	c.await("a flush", func() (err error) {
		if err = g.flush(t.Context()); err == nil {
			var ok bool
			if at, ok = g.machine.mark(); !ok {
				err = errors.New("there was nothing to flush yet")
			}
		}
		return err
	})
	older := at
	older.Applied--
	if err := g.machine.freeze().persist(older); !errors.Is(err, engine.ErrSuperseded) {
		t.Errorf("an older cut: %v", err)
	}
	if now, ok := g.machine.mark(); !ok || now.Applied != at.Applied {
		t.Errorf("the cut at entry %d has become one at %d, %t", at.Applied, now.Applied, ok)
	}
}
