package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
)

// TestLiveAround: a node that can't hear the leader of a shard while another one can gets its
// feeds of it from there, and so does a node without shards that had them from the first.
func TestLiveAround(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	const base = 1_000_000
	c.mustWrite("n1", base, 1)
	c.join("n4", "n1")
	queries := []string{`m`, `sum(m)`, `sum by (s) (max_over_time(m[10s:1s]))`} // the last is stepped
	n4 := c.live("n4", time.Unix(base, 0), queries...)
	defer n4.close(t)
	c.await("a feed from another node", func() error {
		if len(c.nodes["n4"].node.servers()) == 0 {
			return errors.New("none")
		}
		return n4.poll()
	})
	deaf := c.nodes["n4"].node.servers()[0]
	var unheard, witness string
	c.await("another that leads a shard with series", func() error {
		n := c.nodes[deaf].node
		for i := range n.replicas.Len() {
			names, err := n.replicas.Reader([]int{i}).LabelNames(t.Context(), everything())
			if leader := n.localLeader(uint64(i)); leader != "" && leader != deaf && len(names) > 0 {
				unheard = leader
				return nil
			} else if err != nil {
				return err
			}
		}
		return errors.New("none")
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != deaf && name != unheard {
			witness = name
		}
	}
	hubs := []*liveNode{c.live(deaf, time.Unix(base, 0), queries...), n4, c.live(witness, time.Unix(base, 0), queries...)}
	defer hubs[0].close(t)
	defer hubs[2].close(t)
	samples, err := hubs[0].Subscribe(t.Context(), live.Request{Query: `m`, Samples: true})
	if err != nil {
		t.Fatal(err)
	}
	rounds := &liveRounds{c: c, hubs: hubs, queries: queries, samples: samples, seen: map[string]bool{}, names: map[uint32]string{}, at: base}
	rounds.run("before", witness)
	for i := range 2 {
		c.net.part(c.peers[deaf], c.peers[unheard], true)
		rounds.run(fmt.Sprint("while two are apart ", i), witness)
		rounds.run(fmt.Sprint("still apart ", i), unheard)
		c.net.part(c.peers[deaf], c.peers[unheard], false)
		rounds.run(fmt.Sprint("together again ", i), deaf)
	}
	c.await("feeds of its own", func() error {
		if s := c.nodes[deaf].node.servers(); len(s) > 0 {
			return fmt.Errorf("%s has feeds from %v", deaf, s)
		}
		return nil
	})
	rounds.run("in the end", unheard)
	samples.Close()
	for _, l := range hubs {
		if len(l.drops) > 0 {
			t.Errorf("dropped %v", l.drops)
		}
	}
}

// TestFeedsFromTwoNodes: while feeds of one selector come from different nodes, of which one
// is behind, a Select shows what came before the other's feed began.
func TestFeedsFromTwoNodes(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	c.mustWrite("n1", 0, 1)
	c.join("n4", "n1")
	n := c.nodes["n4"].node
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}
	var feeds []*joinedFeed
	for range 2 {
		f, err := n.Feeder().Subscribe(t.Context(), &model.FeedRequest{Matchers: ms})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		feeds = append(feeds, f.(*joinedFeed))
	}
	server := n.servers()[0]
	behind := map[string]string{"n1": "n2", "n2": "n3", "n3": "n1"}[server]
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != behind {
			c.net.part(c.peers[behind], c.peers[name], true)
		}
	}
	feeds[1].mu.Lock()
	for _, x := range feeds[1].mu.parts {
		x.node, x.life = behind, c.nodes[behind].node.life
	}
	feeds[1].mu.Unlock()
	c.mustWrite(server, 100, 1)
	for range 10 { // the feeds have no order
		sel, err := model.Select(t.Context(), n.FeedReader(), &model.SelectRequest{MinT: 100_000, MaxT: math.MaxInt64, Matchers: ms})
		if err != nil {
			t.Fatal(err)
		}
		if len(sel.Series) != 10 {
			t.Errorf("%d series", len(sel.Series))
		}
		sel.Close()
	}
}

// TestFeedFromDeaf: a node that hears nothing of a leader tells its feeds so: a subscriber there
// is told that it may lack something, and one elsewhere gets its feed from who hears.
func TestFeedFromDeaf(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 5 * time.Second})
	c.mustWrite("n1", 0, 1)
	c.join("n4", "n1")
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}
	open := func(name string) *follower {
		f, err := c.nodes[name].node.Feeder().Subscribe(t.Context(), &model.FeedRequest{Matchers: ms})
		if err != nil {
			t.Fatal(err)
		}
		return &follower{f: f}
	}
	far := open("n4")
	defer far.f.Close()
	c.await("a feed from another node", func() error { return far.poll(false) })
	deaf := c.nodes["n4"].node.servers()[0]
	near := open(deaf)
	defer near.f.Close()
	c.await("a feed without a lack", func() error { return near.poll(false) })
	others := slices.DeleteFunc([]string{"n1", "n2", "n3"}, func(name string) bool { return name == deaf })
	apart := func(name string, yes bool) {
		for _, other := range others {
			c.net.part(c.peers[name], c.peers[other], yes)
		}
	}
	apart(deaf, true)
	c.await("the deaf node to say so", func() error { return near.poll(true) })
	at := int64(100)
	c.await("a feed from a node that hears", func() error {
		c.mustWrite(others[0], at, 1)
		at++
		if err := far.poll(false); err != nil || far.samples > 0 {
			return err
		}
		return errors.New("it brings nothing")
	})
	apart("n4", true) // it sees the deaf one alone
	c.await("what sees a deaf node alone to say so", func() error { return far.poll(true) })
	apart("n4", false)
	apart(deaf, false)
	c.await("feeds without a lack", func() error { return errors.Join(near.poll(false), far.poll(false)) })
}

// follower polls a feed.
type follower struct {
	f       model.Feed
	b       model.FeedBatch
	samples int
	reset   bool
}

// poll fails unless the feed says that it lacks something, or does not.
func (f *follower) poll(lacks bool) error {
	if err := f.f.Poll(&f.b); err != nil {
		return err
	}
	f.samples += len(f.b.Samples)
	f.reset = f.reset || f.b.Reset
	if f.b.Lacks != lacks {
		return fmt.Errorf("lacks: %t", f.b.Lacks)
	}
	return nil
}

// TestFeedWhileOneComes: while a replica that has come here can't be brought to what its leader
// has, the feed goes on with the others.
func TestFeedWhileOneComes(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 5 * time.Second})
	c.mustWrite("n1", 0, 1)
	n := c.nodes["n1"].node
	came := -1
	c.await("a shard that another node leads", func() error {
		for s := range n.replicas.Len() {
			if leader := n.localLeader(uint64(s)); leader != "" && leader != "n1" {
				came = s
				return nil
			}
		}
		return errNotLeader
	})
	j := &joinedFeed{n: n, ready: make(chan struct{}, 1), failed: make(chan struct{}, 1), release: func() bool { return true }}
	j.ctx, j.cancel = context.WithCancelCause(t.Context())
	if err := j.arrange(true); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	j.mu.local.here = slices.DeleteFunc(slices.Clone(j.mu.local.here), func(s int) bool { return s == came })
	c.net.isolate(c.peers["n1"], true)
	if err := j.arrange(false); !errors.Is(err, model.ErrUnavailable) {
		t.Errorf("a leader that can't be reached: %v", err)
	}
	f := &follower{f: j}
	if err := f.poll(true); err != nil || j.mu.local.feed == nil {
		t.Errorf("%v; there is a feed of the others: %t", err, j.mu.local.feed != nil)
	}
	c.net.isolate(c.peers["n1"], false)
	c.await("all of them", func() error { return errors.Join(j.arrange(false), f.poll(false)) })
	if !f.reset {
		t.Error("it has not begun anew")
	}
}

// TestFeedWithoutOneShard: a feed goes on elsewhere with what can be had, if one shard can't.
func TestFeedWithoutOneShard(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 5 * time.Second})
	c.mustWrite("n1", 0, 1)
	c.join("n4", "n1")
	n := c.nodes["n4"].node
	j, err := n.Feeder().Subscribe(t.Context(), &model.FeedRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	f := &follower{f: j}
	c.await("a feed", func() error { return f.poll(false) })
	const gone = 0
	for _, name := range []string{"n1", "n2", "n3"} {
		if err := c.nodes[name].node.stopGroup(gone); err != nil {
			t.Fatal(err)
		}
	}
	c.await("a feed of the other shards", func() error {
		if err := f.poll(true); err != nil {
			return err
		}
		for _, a := range f.b.Applied {
			if a.Shard == gone {
				return fmt.Errorf("it still has %v", f.b.Applied)
			}
		}
		if len(f.b.Applied) != n.replicas.Len()-1 {
			return fmt.Errorf("it has %v", f.b.Applied)
		}
		return nil
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		c.stop(name)
		c.start(name)
	}
	c.await("all of them", func() error { return f.poll(false) })
}
