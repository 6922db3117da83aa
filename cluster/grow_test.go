package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// single writes with a single node on the folder of n1.
func (c *trio) single(flush bool) {
	c.t.Helper()
	db, err := engine.Open(filepath.Join(c.dir, "n1"), &engine.Options{Shards: 4, Retention: -1, FS: vfs.NewFault(vfs.OS{}, nil), SegmentBytes: 1 << 20})
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes["n1"] = &member{db: db}
	c.mustWrite("n1", int64(len(c.acked))*1000, 50)
	if flush {
		if err := db.Flush(context.Background()); err != nil {
			c.t.Fatal(err)
		}
	}
	c.mustWrite("n1", int64(len(c.acked))*1000+50, 7)
	c.stop("n1")
}

// joined waits until a node has a vote in every group.
func (c *trio) joined(name string) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n, voters := c.nodes[name].node, 0
		for id := range n.allGroups() {
			if n.voting(id) {
				voters++
			}
		}
		if voters == n.replicas.Len()+1 {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("%s is a voter of %d groups", name, voters)
		}
	}
}

// TestGrow: the folder of a single node becomes the first of three; the others get all
// that it holds.
func TestGrow(t *testing.T) {
	for _, flush := range []bool{true, false} {
		t.Run(fmt.Sprint(flush), func(t *testing.T) {
			c := emptyTrio(t, Options{}, nil)
			c.single(flush)
			c.startAll()
			c.joined("n2")
			c.joined("n3")
			c.mustWrite("n2", 5000, 10)
			c.checkAll()
			c.equalHashes()
			c.stop("n1") // the others are a majority, and have everything
			c.mustWrite("n3", 6000, 10)
			c.checkAll()
			c.start("n1")
			c.checkAll()
		})
	}
}

// TestGrowWithoutTheFirst: while the node is away whose folder the cluster began with, one that
// has not come yet is let in by those that have.
func TestGrowWithoutTheFirst(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	c.single(true)
	c.start("n1")
	c.start("n2")
	c.join("n4", "n1")
	for _, name := range []string{"n2", "n4"} {
		c.await("three that vote for the metadata", func() error {
			if !c.nodes[name].node.voting(uint64(metaStream)) {
				return errors.New("not " + name)
			}
			return nil
		})
	}
	c.joined("n2")
	c.stop("n1")
	c.start("n3")
	c.await("n3 in the map", func() error {
		if x := c.nodes["n4"].node.currentMap().nodes["n3"]; x.State != stateMember {
			return fmt.Errorf("it is %+v", x)
		}
		return nil
	})
	c.start("n1") // without it the shards have no majority
	c.await("n3 with all its replicas", c.nodes["n3"].node.Ready)
	c.mustWrite("n3", 5000, 10)
	c.checkAll()
}

// TestGrowBeside: of two folders with the data of single nodes, as after a restore on each
// host, one begins a cluster. The other does not begin one beside it, nor when it is told to
// enter: it is empty that a node comes into a cluster.
func TestGrowBeside(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	c.single(true)
	if err := os.CopyFS(filepath.Join(c.dir, "n2"), os.DirFS(filepath.Join(c.dir, "n1"))); err != nil {
		t.Fatal(err)
	}
	c.start("n1")
	refused := func(want string) {
		t.Helper()
		m, err := c.open("n2")
		if err == nil {
			err = errors.Join(errors.New("it started"), m.db.Close())
		}
		if !errors.Is(err, ErrIdentity) || !strings.Contains(err.Error(), want) {
			t.Fatalf("got %v, want %q", err, want)
		}
	}
	refused("node n1 belongs to cluster " + c.nodes["n1"].node.identity.get().Cluster)
	c.joining["n2"] = c.peers["n1"]
	refused("empty it first")
	delete(c.joining, "n2")
	if err := os.RemoveAll(filepath.Join(c.dir, "n2")); err != nil {
		t.Fatal(err)
	}
	c.start("n2")
	c.start("n3")
	c.joined("n2")
	c.joined("n3")
	c.mustWrite("n2", 5000, 10)
	c.checkAll()
}

// TestGrowCrash: the growing breaks off at each of its steps; the folder still serves as
// a single node's, and the next attempt succeeds.
func TestGrowCrash(t *testing.T) {
	for fail := uint64(1); ; fail += 7 {
		c := emptyTrio(t, Options{}, nil)
		c.single(true)
		grown := c.growUntil(fail)
		c.acked = map[string]map[int64]uint64{}
		if !grown {
			c.single(false) // as a single node
		}
		c.start("n1")
		c.mustWrite("n1", 9000, 1)
		c.check("n1")
		c.stop("n1")
		if grown {
			return
		}
	}
}

// growUntil starts n1 on a disk that fails at some operation after the log is open, and
// returns whether it started nevertheless.
func (c *trio) growUntil(n uint64) bool {
	opened, ops := false, uint64(0)
	fsys := vfs.NewFault(vfs.OS{}, func(op vfs.Op) error {
		if changes := op.Kind == vfs.OpSync || op.Kind == vfs.OpRename || op.Kind == vfs.OpCreate || op.Kind == vfs.OpWrite; !opened || !changes {
			return nil
		}
		if ops++; ops >= n {
			return os.ErrPermission
		}
		return nil
	})
	o := c.opts
	o.Name, o.Listen, o.Peers, o.Dir = "n1", c.peers["n1"], c.peers, filepath.Join(c.dir, "n1")
	o.Network, o.Heartbeat, o.FS = memHost{c.net, c.peers["n1"]}, 100*time.Millisecond, fsys
	settled := false
	_, err := engine.Open(o.Dir, &engine.Options{Shards: 4, Retention: -1, FS: fsys, SegmentBytes: 1 << 20,
		Replicate: func(r *engine.Replicas) (engine.Committer, error) {
			opened = true
			x := &Node{opts: o, replicas: r}
			x.opts.EnsureDefaults()
			var err error
			if x.identity, err = loadIdentity(&x.opts); err != nil {
				return nil, err
			}
			if err = x.adoptSingle(); err == nil {
				err = x.grow(context.Background())
			}
			settled = err == nil
			opened = false
			return nil, fmt.Errorf("stopped here: %w", model.ErrClosed)
		}})
	if err == nil {
		c.t.Fatal("opened")
	}
	return settled
}
