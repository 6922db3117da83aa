package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// blocksOf returns the files of a node's blocks.
func (c *trio) blocksOf(name string) []string {
	c.t.Helper()
	var out []string
	if err := filepath.WalkDir(filepath.Join(c.dir, name, "shards"), func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".blk") {
			out = append(out, path)
		}
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	if len(out) == 0 {
		c.t.Fatal("no blocks")
	}
	return out
}

// flipByte damages a file where it lies.
func flipByte(t *testing.T, name string, at func(size int64) int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	off := at(fi.Size())
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// read reads everything at a node and drops it.
func (c *trio) read(name string) error {
	ctx := context.Background()
	sel, err := c.nodes[name].db.Select(ctx, &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil {
		return err
	}
	defer sel.Close()
	for _, s := range sel.Series {
		if err := s.Read(&model.Columns{}); err != nil {
			return err
		}
	}
	return nil
}

// repaired waits until a node has made so many repairs.
func (c *trio) repaired(name string, n int) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		got := testutil.ToFloat64(c.nodes[name].node.metrics.repairs)
		if got == float64(n) {
			return
		}
		if got > float64(n) || time.Now().After(deadline) {
			c.t.Fatalf("%s made %v repairs, want %d", name, got, n)
		}
	}
}

// TestRepair: a read that meets a damaged block fails, and the block comes back from
// another replica, where the blocks are others; so does one that can't even be opened
// at the start, and one that is gone.
func TestRepair(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 500)
	c.check("n3")
	c.flush("n3")
	c.mustWrite("n1", 500, 100)
	c.checkAll()
	for name := range c.peers { // so that n1 and n2 have one block where n3 has two
		c.flush(name)
	}
	c.mustWrite("n2", 600, 50)

	blocks := c.blocksOf("n3")
	flipByte(t, blocks[0], func(int64) int64 { return 40 }) // in a page of chunks
	c.stop("n3")                                            // nothing of it is cached any more
	c.start("n3")
	if _, _, err := c.nodes["n3"].node.Sync(context.Background(), Wanted{Level: Linearizable, Held: true}); err != nil {
		t.Fatal(err)
	}
	if err := c.read("n3"); err == nil {
		t.Fatal("a damaged block was read")
	}
	c.repaired("n3", 1)
	c.check("n3")

	c.stop("n3")
	blocks = c.blocksOf("n3")
	flipByte(t, blocks[0], func(size int64) int64 { return size - 8 }) // the footer
	if err := os.Remove(blocks[len(blocks)-1]); err != nil {
		t.Fatal(err)
	}
	c.start("n3")
	c.repaired("n3", 2)
	c.check("n3")
	c.mustWrite("n3", 700, 10)
	c.checkAll()
	c.equalHashes()
	c.stop("n3")
	c.start("n3")
	c.checkAll()
}

// TestReadPastDamage: a read that finds the index of a block damaged, here or at another node, gives
// what another replica has.
func TestReadPastDamage(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	c.mustWrite("n1", 0, 500)
	c.checkAll()
	for _, name := range []string{"n2", "n3"} {
		c.flush(name)
		c.stop(name)
		for _, b := range c.blocksOf(name) {
			flipByte(t, b, lastOfIndex(t, b))
		}
		c.start(name)
		c.await("readiness of "+name, c.nodes[name].node.Ready)
	}
	req := everything()
	req.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "s", "")}
	for _, x := range []struct{ at, ask string }{{"n3", ""}, {"n4", "n2"}} {
		n := c.nodes[x.at].node
		ctx, _, err := n.Sync(t.Context(), Wanted{Level: Linearizable})
		if err != nil {
			t.Fatal(err)
		}
		if x.ask != "" {
			_, elsewhere := n.split()
			if _, err := ctx.Value(readingKey{}).(*reading).askSync(ctx, x.ask, elsewhere); err != nil {
				t.Fatal(err)
			}
		}
		sel, err := model.Select(ctx, n.Reader(), req)
		if err != nil {
			t.Fatalf("%s: %v", x.at, err)
		}
		if len(sel.Series) != 10 {
			t.Errorf("%s: %d of 10 series", x.at, len(sel.Series))
		}
		sel.Close()
		values, err := n.Reader().LabelValues(ctx, "s", req)
		if err != nil || len(values) != 10 {
			t.Errorf("%s: %q, %v", x.at, values, err)
		}
	}
	for _, name := range []string{"n2", "n3"} { // so it was found
		c.await("a repair at "+name, func() error {
			if testutil.ToFloat64(c.nodes[name].node.metrics.repairs) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	}
}

// lastOfIndex gives the place of the last byte before a block's table of contents.
func lastOfIndex(t *testing.T, name string) func(size int64) int64 {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return func(size int64) int64 { return int64(binary.LittleEndian.Uint64(b[size-28:])) - 1 }
}

// TestLostShard: a damaged manifest, and a damaged table, make the shard empty here, and
// it comes back from the leader; no read is answered from the empty one.
func TestLostShard(t *testing.T) {
	c := newTrio(t, Options{TrailingLogs: 1})
	c.mustWrite("n1", 0, 100)
	c.checkAll()
	for name := range c.peers {
		c.flush(name)
	}
	c.mustWrite("n1", 200, 100)
	c.checkAll()
	for name := range c.peers {
		c.flush(name)
	}
	c.mustWrite("n1", 400, 10)
	c.stop("n2")
	flipByte(t, filepath.Join(c.dir, "n2", "shards", "000", "MANIFEST"), func(size int64) int64 { return size / 2 })
	tables, err := filepath.Glob(filepath.Join(c.dir, "n2", "shards", "00[12]", "*.tbl"))
	if err != nil || len(tables) != 2 {
		t.Fatal(tables, err)
	}
	flipByte(t, tables[0], func(size int64) int64 { return size / 2 })
	if err := os.Remove(tables[1]); err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n3", 500, 10)
	c.start("n2")
	if len(c.nodes["n2"].node.identity.get().Lost) != 3 {
		t.Fatalf("lost: %v", c.nodes["n2"].node.identity.get().Lost)
	}
	c.check("n2")
	c.repaired("n2", 3)
	c.mustWrite("n2", 600, 10)
	c.checkAll()
	c.equalHashes()
	c.stop("n2")
	c.start("n2")
	c.checkAll()
	c.stop("n1")
	c.mustWrite("n2", 700, 10)
	c.checkAll()
}

// TestRepairAhead: a block that reaches further than what other replicas have on disk comes
// back, although they have no reason of their own to write.
func TestRepairAhead(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 500)
	c.checkAll()
	c.flush("n3")
	c.stop("n3")
	flipByte(t, c.blocksOf("n3")[0], func(size int64) int64 { return size - 8 })
	c.start("n3")
	c.repaired("n3", 1)
	c.checkAll()
}

// equalHashes compares what the nodes hold.
func (c *trio) equalHashes() {
	c.t.Helper()
	var want []Hash
	for name, m := range c.nodes {
		if _, _, err := m.node.Sync(context.Background(), Wanted{Level: Linearizable, Held: true}); err != nil {
			c.t.Fatal(err)
		}
		got, err := m.node.Hashes(context.Background())
		if err != nil {
			c.t.Fatal(err)
		}
		if want == nil {
			want = got
		}
		for i := range got {
			if got[i].Hash != want[i].Hash {
				c.t.Fatalf("%s: shard %d at entry %d is %s, elsewhere %s at %d", name, i, got[i].Index, got[i].Hash, want[i].Hash, want[i].Index)
			}
		}
	}
}

// TestRepairBesideAnother: a damaged block that nobody else has keeps no other from its repair.
func TestRepairBesideAnother(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 500)
	c.checkAll()
	for name := range c.peers {
		c.flush(name)
	}
	damaged := map[string]string{} // by shard
	for _, file := range c.blocksOf("n3") {
		damaged[filepath.Base(filepath.Dir(file))] = file
	}
	shards := slices.Sorted(maps.Keys(damaged))
	if len(shards) < 2 {
		t.Fatalf("blocks of shards %v alone", shards)
	}
	var alone, other int
	for i, shard := range []*int{&alone, &other} {
		if _, err := fmt.Sscanf(shards[i], "%d", shard); err != nil {
			t.Fatal(err)
		}
	}
	c.await("the map", func() error { _, err := c.nodes["n3"].node.freshMap(t.Context()); return err })
	for _, from := range []string{"n1", "n2"} {
		if err := c.nodes["n3"].node.MoveShard(t.Context(), alone, from, ""); err != nil {
			t.Fatal(err)
		}
		c.planEnds(PlanDone)
	}
	for _, shard := range shards[:2] {
		flipByte(t, damaged[shard], func(int64) int64 { return 40 })
	}
	c.stop("n3")
	c.start("n3")
	r := c.nodes["n3"].node.replicas
	for _, shard := range []int{alone, other} { // in this order
		sel, err := model.Select(t.Context(), r.Reader([]int{shard}), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sel.Series {
			if err = s.Read(&model.Columns{}); err != nil {
				break
			}
		}
		if sel.Close(); err == nil {
			t.Fatalf("a damaged block of shard %d was read", shard)
		}
	}
	c.repaired("n3", 1)
}

// TestRepairEachOther: replicas of which each has a damaged block repair each other's, though
// none of them is whole.
func TestRepairEachOther(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 100)
	c.mustWrite("n1", 3_000_000, 100) // in blocks of another time
	c.checkAll()
	for name := range c.peers {
		c.flush(name)
	}
	stay := map[string][]string{} // by shard, of n2
	for _, file := range c.blocksOf("n2") {
		stay[filepath.Base(filepath.Dir(file))] = append(stay[filepath.Base(filepath.Dir(file))], filepath.Base(file))
	}
	shard := slices.Sorted(maps.Keys(stay))[0]
	if len(stay[shard]) < 2 {
		t.Fatalf("shard %s has the blocks %v", shard, stay[shard])
	}
	slices.Sort(stay[shard])
	damaged := map[string]string{"n1": stay[shard][0], "n2": stay[shard][1], "n3": stay[shard][1]}
	for _, name := range slices.Sorted(maps.Keys(damaged)) {
		c.stop(name)
	}
	for name, block := range damaged {
		flipByte(t, filepath.Join(c.dir, name, "shards", shard, block), func(size int64) int64 { return size - 8 })
	}
	c.startAll()
	for name := range damaged {
		c.repaired(name, 1)
	}
	c.checkAll()
	c.equalHashes()
}
