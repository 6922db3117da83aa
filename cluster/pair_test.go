package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
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

// appendPair writes n samples of five series as two senders have them, from a time on, all
// those that lost does not take away.
func (c *trio) appendPair(to string, from int64, n int, lost func(sender string, i int) bool) {
	c.t.Helper()
	b := &model.Batch{}
	for s := range 5 {
		for k, sender := range []string{"a", "b"} {
			bs := model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "p", "__replica__", sender, "s", fmt.Sprint(s))), From: len(b.T)}
			for i := range n {
				if lost == nil || !lost(sender, i) {
					b.T, b.V = append(b.T, from+int64(i)*15_000+int64(k)*7_000), append(b.V, float64(i))
				}
			}
			bs.To = len(b.T)
			b.Series = append(b.Series, bs)
		}
	}
	res, err := c.nodes[to].db.Append(context.Background(), b)
	if err != nil || res.Samples != len(b.T) {
		c.t.Fatalf("%d of %d samples: %v", res.Samples, len(b.T), err)
	}
}

// chosen waits until a choice has been made in all shards that hold series of the pair.
func (c *trio) chosen(least int) {
	c.t.Helper()
	c.await("a choice among senders", func() error {
		for _, m := range c.nodes {
			if err := m.db.Maintain(context.Background()); err != nil {
				return err
			}
		}
		for name := range c.nodes {
			if n := c.samplesOf(name, "b"); n > least {
				return fmt.Errorf("%s has %d samples of the second sender", name, n)
			}
		}
		return nil
	})
}

// samplesOf counts what a node has of a sender, linearizably.
func (c *trio) samplesOf(name, sender string) (n int) {
	c.t.Helper()
	m := c.nodes[name]
	ctx, _, err := m.node.Sync(context.Background(), Wanted{Level: Linearizable, Held: true})
	if err != nil {
		c.t.Fatal(err)
	}
	sel, err := model.Select(ctx, m.node.Reader(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__replica__", sender)}})
	if err != nil {
		c.t.Fatal(err)
	}
	defer sel.Close()
	for _, s := range sel.Series {
		var cols model.Columns
		if err := s.Read(&cols); err != nil {
			c.t.Fatal(err)
		}
		n += len(cols.T)
	}
	return n
}

// TestChoice: a choice among senders is the same on all replicas, at whatever time each
// flushes, merges, restarts and repairs; and a sender that is lost, or comes late, leaves no gap.
func TestChoice(t *testing.T) {
	c := emptyTrio(t, Options{}, nil)
	c.engine = func(_ string, o *engine.Options) { o.PairLabel = "__replica__" }
	c.startAll()
	const n = 400
	gone := func(sender string, i int) bool { return sender == "a" && i >= 100 && i < 200 }
	c.appendPair("n1", 0, n, gone)
	c.flush("n1") // the others have it in memory when they hear of the choice
	c.chosen(5 * 130)
	has := func(a, b int) {
		t.Helper()
		for _, name := range []string{"n1", "n2", "n3"} {
			if x, y := c.samplesOf(name, "a"), c.samplesOf(name, "b"); x != a || y != b {
				t.Fatalf("%s has %d and %d samples of the two senders, want %d and %d", name, x, y, a, b)
			}
		}
	}
	x, y := c.samplesOf("n1", "a"), c.samplesOf("n1", "b")
	if x+y < 5*(n-2) || x+y > 5*(n+12) {
		t.Fatalf("%d and %d samples are left of %d", x, y, 5*n)
	}
	has(x, y)
	c.equalHashes()

	late := func(sender string, i int) bool { return sender == "b" }
	c.appendPair("n2", 100*15_000, 50, late)
	has(x+5*50, y)
	c.flush("n2")
	c.stop("n3")
	c.appendPair("n1", 150*15_000, 50, late)
	c.start("n3")
	for _, name := range []string{"n2", "n3", "n1"} {
		if err := c.nodes[name].db.Maintain(context.Background()); err != nil {
			t.Fatal(err)
		}
		has(x+5*100, y)
	}
	c.equalHashes()
	for name := range c.peers {
		c.flush(name)
		if err := c.nodes[name].db.Maintain(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	has(x+5*100, y)
	c.equalHashes()

	blocks := c.blocksOf("n3")
	c.stop("n3")
	flipByte(t, blocks[len(blocks)-1], func(size int64) int64 { return size - 8 })
	c.start("n3")
	c.repaired("n3", 1)
	has(x+5*100, y)
	c.equalHashes()
}
