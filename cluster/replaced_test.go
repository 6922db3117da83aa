package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// TestOldFolder: a folder that comes back after another took its place is told, and its
// process stops and says what to do, though no leader speaks to it any more: one that had
// votes, and one that held no shard and was removed before the name was given again.
func TestOldFolder(t *testing.T) {
	t.Run("a voter", func(t *testing.T) {
		c := newTrio(t, Options{})
		c.mustWrite("n1", 0, 10)
		c.oldFolderIsTold("n3", func() {})
	})
	t.Run("without shards", func(t *testing.T) {
		c := newTrio(t, Options{})
		c.join("n4", "n1")
		c.await("the fourth node", c.nodes["n4"].node.Ready)
		c.oldFolderIsTold("n4", func() {
			if err := c.nodes["n1"].node.RemoveNode(t.Context(), "n4", true); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// oldFolderIsTold has a node come back with a new folder, and then with its old one; down
// is called before that, while it is down.
func (c *trio) oldFolderIsTold(name string, down func()) {
	c.t.Helper()
	c.stop(name)
	down()
	dir := filepath.Join(c.dir, name)
	if err := os.Rename(dir, dir+".old"); err != nil {
		c.t.Fatal(err)
	}
	c.start(name)
	c.await("the new folder's membership", func() error { return c.nodes[name].node.Ready() })
	c.stop(name)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(dir+".old", dir)); err != nil {
		c.t.Fatal(err)
	}
	failed := make(chan error, 1)
	c.engine = func(_ string, o *engine.Options) {
		o.OnFailure = func(err error) { failed <- err }
	}
	c.start(name)
	select {
	case err := <-failed:
		if !errors.Is(err, ErrIdentity) || !errors.Is(err, model.ErrFailed) || !strings.HasPrefix(err.Error(), fmt.Sprintf("cluster: cluster identity: the cluster knows node %s by another folder since", name)) {
			c.t.Fatal(err)
		}
	case <-time.After(40 * time.Second):
		c.t.Fatalf("nobody told the old folder: %v", c.nodes[name].node.Ready())
	}
	c.mustWrite("n1", 20, 10)
}

// TestRegisterBehindTheMap: what a node last read of the map may be older than what its
// replica has applied, and then has an earlier folder of it; that must not stop it.
func TestRegisterBehindTheMap(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n3"].node
	c.await("the map", func() error { return n.Ready() })
	behind := *n.currentMap()
	behind.nodes = maps.Clone(behind.nodes)
	x := behind.nodes[n.name]
	x.Incarnation = "earlier"
	behind.nodes[n.name] = x
	n.cmap.Store(&behind)
	n.register() // the trio's OnFailure fails the test
	if err := n.loadMap(); err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n3", 0, 10)
	c.checkAll()
}

// TestRemovedSaysSo: a node that was removed is not ready from the moment that its map says
// so, while it still knows of leaders that it follows no longer.
func TestRemovedSaysSo(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	n4 := c.nodes["n4"].node
	c.await("the fourth node", n4.Ready)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n4.AwaitRemoval(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v of a node that was not removed", err)
	}
	told := make(chan error, 1)
	go func() { told <- n4.AwaitRemoval(t.Context()) }()
	if err := c.nodes["n1"].node.RemoveNode(t.Context(), "n4", false); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != nil {
		t.Error(err)
	}
	c.await("word of the removal", func() error {
		known := n4.currentMap().nodes["n4"].State == stateRemoved
		err := n4.Ready()
		switch {
		case err != nil && strings.Contains(err.Error(), "was removed from the cluster"):
			return nil
		case known:
			t.Fatalf("the map says that it was removed, the node: %v", err)
		}
		return fmt.Errorf("ready: %v", err)
	})
}

// TestRemovedWhileDown: a node that was drained and removed while it was down hears of it when it comes
// back, and does not try to become a member again where its old map has it.
func TestRemovedWhileDown(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	c.join("n4", "n1")
	n1 := c.nodes["n1"].node
	for _, change := range []func() error{
		func() error { return n1.MoveShard(t.Context(), 0, "n2", "n4") },
		func() error {
			c.stop("n4")
			_, err := n1.DrainNode(t.Context(), "n4", "")
			return err
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		c.planEnds(PlanDone)
	}
	if err := n1.RemoveNode(t.Context(), "n4", false); err != nil {
		t.Fatal(err)
	}
	c.start("n4")
	n4 := c.nodes["n4"].node
	if err := n4.AwaitRemoval(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !n4.currentMap().shards[0].on("n4") {
		t.Error("its map is not that of before")
	}
	if n4.reconcile() {
		t.Error("it tries to become what it was")
	}
	if s := n1.Status(t.Context()); slices.ContainsFunc(s.Nodes, func(x NodeStatus) bool { return x.Name == "n4" }) {
		t.Errorf("the status of others has it: %+v", s.Nodes)
	}
	c.mustWrite("n1", 20, 10)
	c.check("n2")
}
