package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
)

// loseLog empties the files of a stopped node's log.
func (c *trio) loseLog(name string) {
	c.t.Helper()
	segments, err := filepath.Glob(filepath.Join(c.dir, name, "wal", "*.wal"))
	if err != nil || len(segments) == 0 {
		c.t.Fatal(segments, err)
	}
	for _, s := range segments {
		if err := os.Truncate(s, 0); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *trio) loseFolder(name string) {
	c.t.Helper()
	if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
		c.t.Fatal(err)
	}
}

// opening is a node that starts while the test goes on.
type opening struct {
	name  string
	ended chan error
	m     *member
}

func (c *trio) opening(name string) *opening {
	o := &opening{name: name, ended: make(chan error, 1)}
	go func() {
		var err error
		o.m, err = c.open(name)
		o.ended <- err
	}()
	return o
}

// opened waits for the end of a start.
func (c *trio) opened(o *opening) {
	c.t.Helper()
	if err := <-o.ended; err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[o.name] = o.m
}

// waits has the starts of nodes say what they wait for as nodes in doubt.
func (c *trio) waits() <-chan string {
	said := make(chan string, 64)
	c.opts.OnWait = func(why string) {
		if strings.HasPrefix(why, "not taking part") {
			said <- why
		}
	}
	return said
}

// takeOut removes a stopped node's member from every group, so that a node knows of the commit.
func (c *trio) takeOut(name, by string) {
	c.t.Helper()
	n := c.nodes[by].node
	for id := range n.allGroups() {
		c.await("the removal of "+name+" from "+groupName(id), func() error {
			v, err := n.askConfig(c.t.Context(), id)
			if err != nil {
				return err
			}
			for _, s := range v.Servers {
				if s.Node == name {
					return errors.Join(errBehind, n.changeGroup(c.t.Context(), id, &groupChange{Remove: s.ID}))
				}
			}
			g := n.group(id)
			at, _ := g.machine.mark()
			if cs := newestConfigurations(&at, g.store.configurations.get(), g.raft.CommitIndex()); len(cs) != 1 {
				return errors.New("not committed, as " + by + " knows")
			}
			return nil
		})
	}
}

// TestDoubtAfterRemoval: a node in doubt does not wait for a voter that was taken out of the
// groups, which it has forgotten itself.
func TestDoubtAfterRemoval(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 20)
	c.flush("n2")
	c.mustWrite("n1", 20, 20)
	c.stop("n3")
	c.takeOut("n3", "n1")
	c.mustWrite("n1", 40, 20)
	c.stop("n2")
	c.loseLog("n2")
	c.start("n2")
	c.mustWrite("n2", 60, 20)
	c.checkAll()
	if n := c.nodes["n2"].db.Stats().Log.Damaged; n != 1 {
		t.Errorf("the loss of the log was counted %d times", n)
	}
	c.loseFolder("n3")
	c.start("n3")
	c.joined("n3")
	c.mustWrite("n3", 80, 20)
	c.checkAll()
}

// TestDoubtAfterNewFolder: a node in doubt asks the new folder of a node and not the one that
// was lost, and does not go on without it: the two may have been the majority.
func TestDoubtAfterNewFolder(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 2 * time.Second})
	said := c.waits()
	c.mustWrite("n1", 0, 20)
	c.flush("n2")
	was := string(c.nodes["n3"].node.raftID)
	c.stop("n3")
	c.loseFolder("n3")
	c.start("n3")
	c.joined("n3")
	c.mustWrite("n3", 20, 20)
	c.checkAll()
	again := string(c.nodes["n3"].node.raftID)
	c.stop("n1") // it lacks what follows
	c.mustWrite("n3", 40, 20)
	c.stop("n3")
	c.stop("n2")
	c.loseLog("n2")
	c.start("n1")
	n2 := c.opening("n2")
	if why := <-said; !strings.Contains(why, again) || strings.Contains(why, was) {
		t.Errorf("n2 waits otherwise than for %s: %s", again, why)
	}
	if err := c.write("n1", 500, 1); err == nil {
		t.Fatal("n1 and n2 made a majority without what n2 lost")
	}
	c.start("n3")
	c.opened(n2)
	c.mustWrite("n2", 60, 20)
	c.checkAll()
}

// TestTwoLosses: of three nodes one lost its folder and another its log: nothing tells what the
// two had acknowledged. The one in doubt says for whom it waits and what to do, and so does the
// third of it; the folder of either becomes a new cluster.
func TestTwoLosses(t *testing.T) {
	for _, furthest := range []string{"n1", "n2"} {
		t.Run(furthest, func(t *testing.T) {
			c := newTrio(t, Options{CommitTimeout: 2 * time.Second})
			said := c.waits()
			c.mustWrite("n1", 0, 50)
			c.checkAll()
			c.flush("n2")
			was := string(c.nodes["n3"].node.raftID)
			c.stop("n3")
			c.stop("n2")
			c.loseFolder("n3")
			c.loseLog("n2")
			ctx, cancel := context.WithCancel(context.Background())
			c.ctx = ctx
			n2, n3 := c.opening("n2"), c.opening("n3")
			for want := was + " (n3 runs on another folder now)"; ; {
				why := <-said
				if !strings.Contains(why, "strandline cluster recover") || !strings.Contains(why, "shard 0") {
					t.Fatalf("n2 does not say what to do: %s", why)
				}
				if strings.Contains(why, want) { // n3 may come later
					break
				}
			}
			c.await("word of it at n1", func() error {
				s := c.nodes["n1"].node.Status(t.Context())
				for _, x := range s.Nodes {
					if x.Name == "n2" && strings.Contains(x.Waits, "strandline cluster recover") {
						return nil
					}
				}
				return errors.New("none")
			})
			cancel()
			if err := errors.Join(<-n2.ended, <-n3.ended); err == nil {
				t.Fatal("n2 or n3 started")
			}
			c.stop("n1")
			found, err := c.recover(furthest, vfs.NewFault(vfs.OS{}, nil), true)
			if err != nil {
				t.Fatal(err)
			}
			if doubts := found.Doubt != ""; doubts != (furthest == "n2") {
				t.Errorf("doubt of %s: %q", furthest, found.Doubt)
			}
			for _, name := range []string{"n1", "n2", "n3"} {
				if name != furthest {
					c.loseFolder(name)
				}
			}
			c.ctx = context.Background()
			c.start(furthest)
			for _, name := range []string{"n1", "n2", "n3"} {
				if name != furthest {
					c.start(name)
				}
			}
			c.joined("n1")
			c.joined("n2")
			c.joined("n3")
			c.mustWrite("n3", 100, 10)
			c.checkAll()
			c.equalHashes()
		})
	}
}
