package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestDamagedLog: a node whose log is damaged in its midst starts with what lies before
// that, fetches the rest, and has lost nothing; in the meantime it votes for nobody who lacks
// what it acknowledged. A whole segment that is missing is the same.
func TestDamagedLog(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	c.engine = func(_ string, o *engine.Options) { o.SegmentBytes = 16 << 10 }
	c.startAll()
	at := int64(0)
	for round, name := range []string{"n3", "n1", "n2", "n3"} {
		for range 20 {
			c.mustWrite("n1", at, 10)
			at += 10
		}
		c.checkAll()
		if round%2 == 1 { // so that manifests are ahead of what will be left of the log
			c.flush(name)
		}
		c.mustWrite("n2", at, 10)
		at += 10
		c.checkAll()
		c.stop(name)
		segments, err := filepath.Glob(filepath.Join(c.dir, name, "wal", "*.wal"))
		if err != nil || len(segments) < 2 {
			t.Fatal(segments, err)
		}
		slices.Sort(segments)
		if round == 2 {
			if err := os.Remove(segments[0]); err != nil {
				t.Fatal(err)
			}
		} else {
			full := segments[:len(segments)-1] // the middle of the last may be behind its end
			flipByte(t, full[(len(full)-1)*round/3], func(size int64) int64 { return size / 2 })
		}
		c.mustWrite(map[string]string{"n1": "n2", "n2": "n3", "n3": "n1"}[name], at, 10)
		at += 10
		c.start(name)
		if n := c.nodes[name].db.Stats().Log.Damaged; n != 1 {
			t.Fatalf("%s: damage was put aside %d times", name, n)
		}
		c.mustWrite(name, at, 10)
		at += 10
		c.checkAll()
		c.await("its log to come to the floors", func() error {
			if me := c.nodes[name].node.identity.get(); len(me.Floors)+len(me.Lost) > 0 {
				return fmt.Errorf("not yet: %v %v", me.Floors, me.Lost)
			}
			return nil
		})
		c.equalHashes()
		if aside, err := c.nodes[name].node.replicas.Log().Aside(); err != nil || aside {
			t.Fatalf("parts of the log lie aside still: %v, %v", aside, err)
		}
	}
	c.stop("n1") // the others must count
	c.mustWrite("n2", at, 10)
	c.checkAll()
}

// TestDamagedLogOfOne: nobody else can have what a cluster of one lost: it does not start.
func TestDamagedLogOfOne(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	c.engine = func(_ string, o *engine.Options) { o.SegmentBytes = 16 << 10 }
	c.alone = true
	c.start("n1")
	for at := range int64(100) {
		c.mustWrite("n1", 10*at, 10)
	}
	c.stop("n1")
	segments, err := filepath.Glob(filepath.Join(c.dir, "n1", "wal", "*.wal"))
	if err != nil || len(segments) < 2 {
		t.Fatal(segments, err)
	}
	slices.Sort(segments)
	flipByte(t, segments[0], func(size int64) int64 { return size / 2 })
	for range 2 { // not the second time either
		if m, err := c.open("n1"); err == nil {
			c.nodes["n1"] = m
			t.Fatal("it started")
		} else if !strings.Contains(err.Error(), "no other node has") {
			t.Fatal(err)
		}
	}
	if found, err := c.recover("n1", vfs.NewFault(vfs.OS{}, nil), true); err != nil || found.Doubt == "" {
		t.Fatal(found, err)
	}
	c.acked = map[string]map[int64]uint64{}
	c.start("n1")
	if aside, err := c.nodes["n1"].node.replicas.Log().Aside(); err != nil || aside {
		t.Fatalf("parts of the log lie aside still: %v, %v", aside, err)
	}
	c.mustWrite("n1", 2000, 10)
	c.check("n1")
}

// TestLostLogOfOne: nor when files of the log are missing, all or the last; `cluster recover`
// goes on without. A last batch that may have been under way keeps no single node from it.
func TestLostLogOfOne(t *testing.T) {
	for _, x := range []struct {
		name        string
		grown, tail bool
		lose        func(c *trio, segments []string)
	}{
		{"all", false, false, func(c *trio, _ []string) { c.loseLog("n1") }},
		{"all, of a node that was single", true, false, func(c *trio, _ []string) { c.loseLog("n1") }},
		{"the last", false, false, func(c *trio, segments []string) {
			if err := os.Remove(segments[len(segments)-1]); err != nil {
				c.t.Fatal(err)
			}
		}},
		{"the last batch", false, true, func(c *trio, _ []string) { c.damage("n1", true, 10) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := emptyTrio(t, Options{}, nil)
			c.engine = func(_ string, o *engine.Options) { o.SegmentBytes = 16 << 10 }
			c.alone = true
			if x.grown {
				c.single(true)
			}
			c.start("n1")
			for at := range int64(100) {
				c.mustWrite("n1", 10000+10*at, 10)
			}
			c.flush("n1")
			flushed := c.acked
			c.acked = map[string]map[int64]uint64{} // what is lost with the log
			c.mustWrite("n1", 19000, 10)
			c.acked = flushed
			for range 20 { // of which the metadata's state knows, behind its flush
				c.putRecord("n1", "before")
			}
			c.stop("n1")
			segments, err := filepath.Glob(filepath.Join(c.dir, "n1", "wal", "*.wal"))
			if err != nil || len(segments) == 0 {
				t.Fatal(segments, err)
			}
			x.lose(c, segments)
			if !x.tail {
				for range 2 {
					if m, err := c.open("n1"); err == nil {
						c.nodes["n1"] = m
						t.Fatal("it started")
					} else if !strings.Contains(err.Error(), "no other node has") || !strings.Contains(err.Error(), "strandline cluster recover --data "+filepath.Join(c.dir, "n1")) {
						t.Fatal(err)
					}
				}
				if found, err := c.recover("n1", vfs.NewFault(vfs.OS{}, nil), true); err != nil || found.Doubt == "" {
					t.Fatal(found, err)
				}
			}
			for again := range int64(2) {
				c.start("n1")
				c.check("n1") // what was flushed
				for _, g := range c.nodes["n1"].node.ordered() {
					if at, _ := g.machine.mark(); g.raft.CurrentTerm() <= at.Term && again == 0 && !x.tail {
						t.Errorf("%s: term %d, and the state is of term %d", g.name(), g.raft.CurrentTerm(), at.Term)
					}
				}
				c.putRecord("n1", fmt.Sprint(again))
				c.mustWrite("n1", 20000+100*again, 10)
				c.stop("n1")
			}
		})
	}
}

// putRecord changes a record by a node, and sees that it did.
func (c *trio) putRecord(name, value string) {
	c.t.Helper()
	n := c.nodes[name].node
	ch := &model.RecordChange{Changes: []model.Change{{Key: "k", Value: []byte(value)}}}
	if err := n.ChangeRecords(c.t.Context(), ch); err != nil {
		c.t.Fatal(err)
	}
	if got := n.replicas.Records("k"); len(got) != 1 || string(got[0].Value) != value {
		c.t.Fatalf("%s: %q was acknowledged, and there is %+v", name, value, got)
	}
}

// TestLostLog: of a node's log nothing is left, and of its shards what another replica sent,
// which reaches behind any log. It takes part again only when it has asked what it may have
// acknowledged; one that never had a vote just goes on.
func TestLostLog(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 16})
	c.join("n4", "n1")
	for at := range int64(30) {
		c.mustWrite("n1", 10*at, 10)
	}
	c.flush("n1")
	c.flush("n2")
	c.stop("n3")
	if err := os.RemoveAll(filepath.Join(c.dir, "n3")); err != nil {
		t.Fatal(err)
	}
	c.start("n3")
	for i, name := range []string{"n3", "n4", "n3"} {
		c.await("readiness of "+name, c.nodes[name].node.Ready)
		c.stop(name)
		segments, err := filepath.Glob(filepath.Join(c.dir, name, "wal", "*.wal"))
		if err != nil || len(segments) == 0 {
			t.Fatal(segments, err)
		}
		for _, s := range segments {
			if err := os.Truncate(s, 0); err != nil {
				t.Fatal(err)
			}
		}
		c.mustWrite("n2", 1000+10*int64(i), 10)
		c.start(name)
		term, ok := c.nodes[name].node.replicas.Log().Value(1, keyCurrentTerm)
		if voted := name != "n4"; voted && (!ok || len(term) != 8) {
			t.Fatalf("%s takes part without a term: %x", name, term)
		}
		c.mustWrite(name, 2000+10*int64(i), 10)
		c.checkAll()
	}
	c.await("readiness of n3", c.nodes["n3"].node.Ready)
	c.sameHashes()
	c.stop("n1")
	c.mustWrite("n2", 3000, 10)
	c.checkAll()
}

// TestLostMeta: a node whose metadata file is damaged or gone gets it from the others, whatever
// is left of the log, and goes by none that lacks what the log begins behind.
func TestLostMeta(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 4})
	c.mustWrite("n1", 0, 10)
	for i := range 40 { // a long log of the metadata
		ch := &model.RecordChange{Changes: []model.Change{{Key: fmt.Sprintf("k%d", i), Value: []byte("v")}}}
		if err := c.nodes["n1"].node.ChangeRecords(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	for round, lose := range []func(file string){
		func(file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
		func(file string) {
			if err := os.Truncate(file, 100); err != nil {
				t.Fatal(err)
			}
		},
		func(file string) { flipByte(t, file, func(size int64) int64 { return size / 2 }) },
	} {
		name := []string{"n1", "n3", "n2"}[round]
		c.await("readiness", c.nodes[name].node.Ready)
		if err := c.nodes[name].node.meta().flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.stop(name)
		lose(filepath.Join(c.dir, name, "meta.json"))
		c.start(name)
		c.await("its metadata", func() error {
			n := c.nodes[name].node
			if err := n.Ready(); err != nil {
				return err
			}
			if me := n.identity.get(); len(me.Floors)+len(me.Lost) > 0 {
				return fmt.Errorf("not yet: %v %v", me.Floors, me.Lost)
			}
			return nil
		})
		if got := len(c.nodes[name].node.replicas.Records("k")); got != 40 {
			t.Fatalf("%s has %d of 40 records", name, got)
		}
		c.mustWrite(name, int64(100*(round+1)), 10)
		c.checkAll()
	}
	c.sameHashes()
}
