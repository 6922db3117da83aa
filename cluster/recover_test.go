package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal/vfs"
)

// recover recovers from a node's folder on a file system.
func (c *trio) recover(name string, fsys vfs.FS, yes bool) (*Survivor, error) {
	var found *Survivor
	err := Recover(context.Background(), filepath.Join(c.dir, name), engine.Options{Retention: -1, FS: fsys, SegmentBytes: 1 << 20},
		func(s *Survivor) bool { found = s; return yes })
	return found, err
}

// TestRecover: of three nodes two are gone for good; the third becomes a new cluster with
// all that it had, which new nodes enter, and an old one can't. Broken off in its middle,
// it is done again.
func TestRecover(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 50)
	c.checkAll()
	c.flush("n2")
	c.markShards()
	c.mustWrite("n2", 50, 20)
	c.checkAll() // n1 has it all
	for name := range c.peers {
		c.stop(name)
	}
	old := filepath.Join(c.dir, "old")
	if err := os.Rename(filepath.Join(c.dir, "n2"), old); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	found, err := c.recover("n1", vfs.OS{}, false)
	if !errors.Is(err, ErrDeclined) || len(found.Groups) != 5 || found.Node != "n1" {
		t.Fatal(found, err)
	}
	for _, g := range found.Groups {
		if !g.Whole || g.Last == 0 || len(g.Members) != 3 {
			t.Fatalf("%+v", g)
		}
	}
	c.breakRecover()
	if _, err := c.recover("n1", vfs.NewFault(vfs.OS{}, nil), true); err != nil {
		t.Fatal(err)
	}
	c.start("n1") // alone
	c.check("n1")
	c.mustWrite("n1", 100, 10)
	c.start("n2") // on an empty folder
	c.start("n3")
	c.joined("n2")
	c.joined("n3")
	c.mustWrite("n2", 200, 10)
	c.checkAll()
	c.equalHashes()
	c.stop("n1")
	c.mustWrite("n3", 300, 10)
	c.stop("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	if m, err := c.open("n3"); err == nil { // it is n2's folder
		c.nodes["n3"] = m
		t.Fatal("a folder of the old cluster came into the new one")
	}
}

// markShards puts a mark into the log of each shard, as a move does.
func (c *trio) markShards() {
	c.t.Helper()
	for _, m := range c.nodes {
		for _, g := range m.node.ordered() {
			if g.id != uint64(metaStream) && g.leads() {
				if err := g.raft.Apply(putMark("of a move"), 5*time.Second).Error(); err != nil {
					c.t.Fatal(err)
				}
			}
		}
	}
}

// breakRecover lets the recovery fail later and later, and checks that the node does not
// start in between.
func (c *trio) breakRecover() {
	begun := false
	for n := 1; ; n += 9 {
		asked, ops := false, 0
		fsys := vfs.NewFault(vfs.OS{}, func(op vfs.Op) error {
			if asked && (op.Kind == vfs.OpSync || op.Kind == vfs.OpRename || op.Kind == vfs.OpCreate) {
				if ops++; ops >= n {
					return os.ErrPermission
				}
			}
			return nil
		})
		err := Recover(context.Background(), filepath.Join(c.dir, "n1"), engine.Options{Retention: -1, FS: fsys, SegmentBytes: 1 << 20},
			func(*Survivor) bool { asked = true; return true })
		if err == nil {
			if !begun {
				c.t.Fatal("it was never broken off in its middle")
			}
			return
		}
		if ops < n {
			c.t.Fatalf("recovery failed by itself: %v", err)
		}
		m, err := c.open("n1")
		if err == nil { // nothing was changed yet: alone it is no majority
			c.nodes["n1"] = m
			c.stop("n1")
		} else if errors.Is(err, ErrIdentity) {
			begun = true
		} else {
			c.t.Fatal(err)
		}
	}
}
