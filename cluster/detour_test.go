package cluster

import (
	"errors"
	"fmt"
	"math"
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
		sel, err := n.FeedReader().Select(t.Context(), &model.SelectRequest{MinT: 100_000, MaxT: math.MaxInt64, Matchers: ms})
		if err != nil {
			t.Fatal(err)
		}
		if len(sel.Series) != 10 {
			t.Errorf("%d series", len(sel.Series))
		}
		sel.Close()
	}
}
