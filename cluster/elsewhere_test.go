package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

func everything() *model.SelectRequest {
	return &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64}
}

// TestElsewhere: a node that holds nothing answers as one that holds everything.
func TestElsewhere(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 20 * time.Second})
	b := &model.Batch{}
	ls := labels.FromStrings("__name__", "h", "x", "y")
	b.Exemplars = append(b.Exemplars, model.Exemplar{T: 5, Value: math.Inf(1), Labels: model.AppendKey(nil, labels.FromStrings("trace", "1"))})
	for i := range int64(150_000) { // more than one piece
		b.T, b.V = append(b.T, i), append(b.V, float64(i)*1.7)
	}
	b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, ls), To: len(b.T), ETo: 1})
	if _, err := c.nodes["n1"].db.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n1", 0, 20)
	c.join("n4", "n1")
	read := func(name string, of *model.SelectRequest) (out string, err error) {
		ctx, _, err := c.nodes[name].node.Sync(t.Context(), Wanted{Level: Linearizable})
		if err != nil {
			return "", err
		}
		r := c.nodes[name].node.Reader()
		late := *of
		late.MinT = max(of.MinT, 3000)
		sels, err := r.SelectAll(ctx, []*model.SelectRequest{of, &late})
		if err != nil {
			return "", err
		}
		defer model.CloseAll(sels)
		for _, s := range slices.Concat(sels[0].Series, sels[1].Series) {
			var cols model.Columns
			if err := s.Read(&cols); err != nil {
				return "", err
			}
			out += fmt.Sprintln(s.Labels(), len(cols.T), cols.T, cols.V)
		}
		names, err := r.LabelNames(ctx, of)
		if err != nil {
			return "", err
		}
		values, err := r.LabelValues(ctx, "s", of)
		if err != nil {
			return "", err
		}
		exemplars, err := r.Exemplars(ctx, of)
		return out + fmt.Sprintln(names, values, exemplars), err
	}
	for _, of := range []*model.SelectRequest{everything(), {MinT: 1000, MaxT: 5000,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "s", "[1-3]")}}} {
		want, err := read("n1", of)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read("n4", of)
		if err != nil || got != want {
			t.Fatalf("%v; n4 answers with %d bytes, n1 with %d", err, len(got), len(want))
		}
	}
	if _, err := read("n4", &model.SelectRequest{MaxT: math.MaxInt64, MaxSeries: 3}); !errors.Is(err, model.ErrLimit) {
		t.Errorf("more series than allowed: %v", err)
	}
	for name, m := range c.nodes {
		c.await("no selection left open at "+name, func() error {
			if n := m.node.selections.count(); n > 0 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
	}
}

// TestRestartBeforeSelect: a node that has started again since a Sync, and does not know
// yet what is committed, answers no read of that Sync.
func TestRestartBeforeSelect(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 20)
	c.join("n4", "n1")
	n := c.nodes["n4"].node
	sync := func() (context.Context, *reading) {
		ctx, _, err := n.Sync(t.Context(), Wanted{Level: Linearizable})
		if err != nil {
			t.Fatal(err)
		}
		p, err := n.readingOf(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ctx, p
	}
	_, other := sync()
	ctx, p := sync()
	at := p.mu.at[0].name
	c.await("two reads that go to the same node", func() error {
		if other.mu.at[0].name == at && p.mu.at[1].name == at {
			return nil
		}
		err := fmt.Errorf("chosen were %v and %v", other.mu.at, p.mu.at)
		other = p
		ctx, p = sync()
		at = p.mu.at[0].name
		return err
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		c.stop(name)
	}
	c.start(at)
	c.await("a connection", func() error {
		if !n.bulk(at).up() || !n.link(at).up() {
			return errDown
		}
		return nil
	})
	if sel, err := model.Select(ctx, n.Reader(), everything()); !errors.Is(err, model.ErrUnavailable) {
		sel.Close()
		t.Errorf("%v, and %d series", err, len(sel.Series))
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != at {
			c.start(name)
		}
	}
	c.check("n4")
	// Brought up to date for one shard, the node is not so for the others.
	c.await("one shard brought up to date", func() error {
		_, err := other.askSync(t.Context(), at, []int{1})
		return err
	})
	if late, _ := other.notSynced(at, []int{0, 1}); !slices.Equal(late, []int{0}) {
		t.Errorf("to be brought up to date: %v", late)
	}
}

// TestAgeAfterLoss: what a stale read says of its age holds although the node that Sync chose
// is lost, and one is read whose data is older.
func TestAgeAfterLoss(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 20)
	c.join("n4", "n1")
	c.check("n4")
	n := c.nodes["n4"].node
	var ctx context.Context
	var told time.Duration
	c.await("an age that is known", func() (err error) {
		ctx, told, err = n.Sync(t.Context(), Wanted{Level: Stale})
		if err == nil && told > time.Minute {
			err = fmt.Errorf("the metadata's leader has not been heard: %v", told)
		}
		return err
	})
	if told != Age(ctx) {
		t.Errorf("told %v, and then %v", told, Age(ctx))
	}
	p, err := n.readingOf(ctx)
	if err != nil {
		t.Fatal(err)
	}
	left := "n1"
	if p.mu.at[0].name == left {
		left = "n2"
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != left {
			c.stop(name)
		}
	}
	least := told + time.Second
	c.await("data that is older than what was told", func() error {
		now := time.Now()
		for shard := range n.replicas.Len() {
			if age := c.nodes[left].node.group(uint64(shard)).staleness(now); age < least {
				return fmt.Errorf("shard %d is %v old", shard, age)
			}
		}
		return nil
	})
	sel, err := model.Select(ctx, n.Reader(), everything())
	if err != nil {
		t.Fatal(err)
	}
	sel.Close()
	if age := Age(ctx); age < least {
		t.Errorf("data of more than %v ago is told to be %v old", least, age)
	}
	if w := Warnings(ctx); len(w) > 0 {
		t.Error(w)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != left {
			c.start(name)
		}
	}
}

// TestPartial: a read of shards that nobody can be asked for fails, or, as asked, says
// what it lacks.
func TestPartial(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: time.Second})
	c.mustWrite("n1", 0, 20)
	c.join("n4", "n1")
	c.check("n4")
	n := c.nodes["n4"].node
	c.net.isolate(c.peers["n4"], true)
	if _, _, err := n.Sync(t.Context(), Wanted{Level: Leader}); !errors.Is(err, model.ErrUnavailable) {
		t.Fatalf("alone: %v", err)
	}
	ctx, _, err := n.Sync(t.Context(), Wanted{Level: Leader, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	sel, err := model.Select(ctx, n.Reader(), everything())
	if err != nil {
		t.Fatal(err)
	}
	series := len(sel.Series)
	sel.Close()
	if w := strings.Join(Warnings(ctx), "; "); series > 0 || !strings.Contains(w, "are missing") {
		t.Errorf("%d series, warnings: %s", series, w)
	}
	c.net.isolate(c.peers["n4"], false)
	c.await("all of it again", func() error {
		ctx, _, err := n.Sync(t.Context(), Wanted{Level: Linearizable, Partial: true})
		if err == nil && len(Warnings(ctx)) > 0 {
			err = fmt.Errorf("%v", Warnings(ctx))
		}
		return err
	})
	c.checkAll()
}

// TestPartialStale: what is left of the nodes that hold the shards has no majority: a read
// that takes what there is gets its data, with a warning.
func TestPartialStale(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: time.Second})
	c.mustWrite("n1", 0, 20)
	c.join("n4", "n1")
	c.check("n3")
	c.check("n4")
	for _, name := range []string{"n1", "n2"} {
		c.net.isolate(c.peers[name], true)
	}
	n := c.nodes["n4"].node
	for range 5 {
		ctx, age, err := n.Sync(t.Context(), Wanted{Level: Linearizable, Partial: true})
		if err != nil {
			t.Fatal(err)
		}
		if age >= 0 {
			t.Errorf("data of another node without a majority is %v old at most", age)
		}
		sel, err := model.Select(ctx, n.Reader(), everything())
		if err != nil {
			t.Fatal(err)
		}
		series := len(sel.Series)
		sel.Close()
		if w := strings.Join(Warnings(ctx), "; "); series != 10 || !strings.Contains(w, "may be older") || strings.Contains(w, "are missing") {
			t.Errorf("%d series, warnings: %s", series, w)
		}
	}
}

// TestNobodyAnswers: a read that can do without the shards whose nodes are silent does not
// wait for them once Sync has, and the status names such shards all the same.
func TestNobodyAnswers(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	c.check("n4")
	n := c.nodes["n4"].node
	c.net.isolate(c.peers["n4"], true)
	c.await("silence", func() error {
		for _, name := range []string{"n1", "n2", "n3"} {
			if !n.mute(name) {
				return errors.New(name + " is not mute")
			}
		}
		return nil
	})
	p := &reading{n: n}
	if _, orphans := p.assign([]int{0, 1}); len(orphans) > 0 {
		t.Errorf("shards %v are asked of nobody, though nobody was waited for", orphans)
	}
	p.mu.lax = true
	if byNode, orphans := p.assign([]int{0, 1}); len(orphans) != 2 {
		t.Errorf("silent nodes are asked: %v", byNode)
	}
	groups := n.Status(t.Context()).Groups
	if len(groups) != 5 {
		t.Fatalf("the status has %d of 5 groups", len(groups))
	}
	for _, g := range groups {
		if g.Group == "metadata" {
			continue
		}
		if g.From != "" || g.Leader != "" || len(g.Members) != 3 || g.Members[0].Answers {
			t.Errorf("%+v", g)
		}
	}
}

// TestNewAddress: nodes come back at other addresses.
func TestNewAddress(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 20)
	c.join("n4", "n1")
	c.await("n4 in the map", func() error { return c.knows("n1", "n4", "n4:1") })
	c.stop("n4")
	c.peers["n4"] = "n4:2"
	c.start("n4")
	c.await("its new address", func() error { return c.knows("n1", "n4", "n4:2") })
	if err := c.nodes["n1"].node.MoveShard(t.Context(), 0, "n2", "n4"); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	c.mustWrite("n4", 50, 10)
	c.checkAll()
	c.sameHashes()
}

func (c *trio) knows(at, name, addr string) error {
	if x := c.nodes[at].node.currentMap().nodes[name]; x.Address != addr {
		return fmt.Errorf("%s has %+v", at, x)
	}
	return nil
}

// TestRemoveDead: a dead node is removed by force, and a rebalance makes up for it.
func TestRemoveDead(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 50)
	c.join("n4", "n1")
	n1 := c.nodes["n1"].node
	if err := n1.RemoveNode(t.Context(), "n3", false); !errors.Is(err, ErrRefused) {
		t.Errorf("removed with shards: %v", err)
	}
	if err := n1.RemoveNode(t.Context(), "n3", true); !errors.Is(err, ErrRefused) {
		t.Errorf("removed while it answers: %v", err)
	}
	c.stop("n3")
	delete(c.peers, "n3")
	c.await("the removal", func() error { return n1.RemoveNode(t.Context(), "n3", true) })
	c.await("members", func() error { return c.members("n1") })
	if _, err := n1.Rebalance(t.Context(), "", "test"); err != nil {
		t.Fatal(err)
	}
	if err := n1.SetPlan(context.Background(), PlanPaused); err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n4", 100, 10)
	if err := n1.SetPlan(context.Background(), PlanRunning); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	for i, s := range n1.currentMap().shards {
		if !slices.Equal(slices.Sorted(slices.Values(s.Replicas)), []string{"n1", "n2", "n4"}) {
			t.Errorf("shard %d is on %v", i, s.Replicas)
		}
	}
	c.await("three voters of the metadata", func() error {
		if v := n1.meta().voters(); len(v) != 3 || slices.ContainsFunc(v, func(s raft.Server) bool { return string(s.Address) == "n3" }) {
			return fmt.Errorf("%v", v)
		}
		return nil
	})
	c.mustWrite("n4", 200, 10)
	c.checkAll()
	c.sameHashes()
}
