package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

const lateName = "late"

// lateSeries returns the key of a series that lies in a shard.
func (c *trio) lateSeries(shard int) []byte {
	c.t.Helper()
	for i := range 1000 {
		key := model.AppendKey(nil, labels.FromStrings("__name__", lateName, "i", fmt.Sprint(i)))
		if model.ShardOf(model.HashKey(key), c.nodes["n1"].node.replicas.Len()) == shard {
			return key
		}
	}
	c.t.Fatal("no series lies in the shard")
	return nil
}

// put writes one sample, and returns when it is acknowledged or is not.
func (c *trio) put(name string, key []byte, t int64, v float64) error {
	res, err := c.nodes[name].db.Append(context.Background(), &model.Batch{Series: []model.BatchSeries{{Key: key, To: 1}}, T: []int64{t}, V: []float64{v}})
	if err == nil && res.Samples != 1 {
		err = fmt.Errorf("stored: %+v", res)
	}
	return err
}

func (c *trio) mustPut(name string, key []byte, t int64, v float64) {
	c.t.Helper()
	if err := c.put(name, key, t, v); err != nil {
		c.t.Fatal(err)
	}
}

// mustHave reads a sample at every node.
func (c *trio) mustHave(key []byte, t int64, v float64) {
	c.t.Helper()
	for name, m := range c.nodes {
		ctx, _, err := m.node.Sync(context.Background(), Wanted{Level: Linearizable})
		if err != nil {
			c.t.Fatal(err)
		}
		sel, err := model.Select(ctx, m.node.Reader(), &model.SelectRequest{MinT: t, MaxT: t,
			Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", lateName)}})
		if err != nil {
			c.t.Fatal(err)
		}
		got := math.NaN()
		for _, s := range sel.Series {
			var cols model.Columns
			if err := s.Read(&cols); err != nil {
				c.t.Fatal(err)
			}
			if labels.Equal(s.Labels(), model.KeyLabels(key)) && len(cols.V) == 1 {
				got = cols.V[0]
			}
		}
		sel.Close()
		if got != v {
			c.t.Errorf("%s has %v, not %v, which was acknowledged last", name, got, v)
		}
	}
}

// other returns the third node.
func other(a, b string) string {
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != a && name != b {
			return name
		}
	}
	return ""
}

// TestLateDuplicate: what was sent to a leader and comes there late, when it has been stored
// by another way and overwritten since, does not undo the newer write. So it is if the sender
// has no replica.
func TestLateDuplicate(t *testing.T) {
	c := newTrio(t, Options{})
	leader, follower := c.leaderOf(0)
	via := other(leader, follower)
	c.mustWrite("n1", 0, 1)
	c.join("n4", "n1")
	key := c.lateSeries(0)
	for i, from := range []string{follower, "n4"} {
		at := int64(10 * i)
		c.mustPut(from, key, at+1, 1)
		h := c.hold(from, leader)
		c.mustPut(from, key, at+2, 1)
		c.mustPut(via, key, at+2, 2)
		c.net.letGo(h)
		c.mustPut(leader, key, at+3, 3) // behind it, if it was taken
		c.mustHave(key, at+2, 2)
	}
}

// TestLateTerm: a leader takes nothing that was sent for an earlier term, nor makes an entry of
// what it took in one.
func TestLateTerm(t *testing.T) {
	c := newTrio(t, Options{})
	leader, _ := c.leaderOf(0)
	g := c.nodes[leader].node.group(0)
	earlier := stamp{term: g.raft.CurrentTerm() - 1, life: 1, number: 1}
	var got error
	p := &proposal{g: g, stamp: earlier, done: func(_ uint64, _ engine.Result, err error) { got = err }}
	if g.submit(p); !errors.Is(got, errLate) && !errors.Is(got, errNotLeader) {
		t.Errorf("it was taken: %v", got)
	}
	p.g, got = g, nil
	if settled, _ := g.node.round(p); !errors.Is(got, errLate) {
		t.Errorf("it was made an entry: %v", got)
	} else {
		<-settled
	}
}

// hold is the network's, and ends with the test at the latest.
func (c *trio) hold(from, to string) *hold {
	h := c.net.hold(c.peers[from], c.peers[to])
	c.t.Cleanup(h.end)
	return h
}

// TestLastAttemptCounts: the success of an attempt that was sent again says nothing as long as
// the last one may still come.
func TestLastAttemptCounts(t *testing.T) {
	c := &commit{ops: make([]engine.Op, 1), states: []attempt{{timer: time.NewTimer(time.Hour)}}}
	c.states[0].number.Store(2)
	for _, x := range []struct {
		number int64
		index  uint64
		done   bool
	}{{1, 5, false}, {2, 6, true}, {2, 7, false}} {
		if done, err := c.settle(&outcome{number: x.number, index: x.index}); done != x.done || err != nil {
			t.Errorf("the success of attempt %d of 2 at entry %d: done %t, %v", x.number, x.index, done, err)
		}
	}
	if c.ops[0].Index != 6 {
		t.Errorf("stored at entry %d", c.ops[0].Index)
	}
}

// TestFence: a leader takes no attempt behind a later one of the same sender, nor any for
// another term.
func TestFence(t *testing.T) {
	var f fence
	var n numbers
	first := n.above(0)
	again := n.above(first)
	if first == 0 || again <= first || n.above(first) != again || n.above(0) != again {
		t.Fatalf("%d, then %d", first, again)
	}
	for _, x := range []struct {
		s    stamp
		term uint64
		want bool
	}{
		{stamp{3, 1, first}, 3, true},
		{stamp{3, 1, again}, 3, true},
		{stamp{3, 1, again}, 3, true},
		{stamp{3, 1, first}, 3, false},
		{stamp{3, 2, first}, 3, true}, // another sender
		{stamp{0, 1, first}, 3, false},
		{stamp{0, 1, again}, 3, true},
		{stamp{}, 3, true},
		{stamp{3, 1, again}, 4, false},
		{stamp{4, 1, first}, 4, true}, // all that it overtook was for earlier terms
		{stamp{3, 1, again + 1}, 4, false},
	} {
		if got := f.admitsLocked(x.s, x.term); got != x.want {
			t.Errorf("%+v in term %d: %t", x.s, x.term, got)
		}
	}
}

// TestLeadAnswer: nodes of two versions tell each other who leads.
func TestLeadAnswer(t *testing.T) {
	for _, x := range []struct {
		l        lead
		question string
		want     lead
	}{{lead{"n1", 7}, askTerm, lead{"n1", 7}}, {lead{"n1", 7}, "", lead{"n1", 0}}, {lead{"", 7}, askTerm, lead{}}} {
		if got, err := parseLead(x.l.answer([]byte(x.question))); got != x.want || err != nil {
			t.Errorf("%+v, asked %q: %+v, %v", x.l, x.question, got, err)
		}
	}
	if l, err := parseLead([]byte("n1@x")); err == nil {
		t.Errorf("n1@x: %+v", l)
	}
}

// TestEarlierVersion: a node of an earlier version gets proposals that it understands.
func TestEarlierVersion(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n1"].node
	ln, err := memHost{c.net, "old:1"}.Listen("old:1")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan message, 2)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := c.nodes["n2"].node.identity.welcome(conn); err != nil {
			t.Error(err)
		}
		w := newWire(conn, &buffers{})
		wrote := make(chan error, 1)
		go func() { wrote <- w.write() }()
		_ = w.read(func(m *message) { // until it is closed
			a := &message{kind: kindError, id: m.id, data: []byte(errMessage.Error())}
			if m.kind == kindPropose || m.kind == kindRelay {
				got <- *m
				a = &message{kind: kindAnswer, id: m.id, data: putOutcome(nil, 7, &engine.Result{TooOld: []engine.Loss{{Series: 2}}}, false)}
			}
			w.answer(a, nil)
		})
		w.close()
		<-wrote
	}()
	l := n.link("old:1")
	<-l.tried
	for k, want := range map[kind]kind{kindWrite: kindPropose, kindRelayed: kindRelay} {
		answered := make(chan error, 1)
		send := func() error {
			n.forwardTo("old:1", k, 3, &proposal{op: []byte("op"), done: func(index uint64, r engine.Result, err error) {
				if err == nil && (index != 7 || len(r.TooOld) != 1 || r.TooOld[0].Series != 2) {
					err = fmt.Errorf("stored at %d: %+v", index, r)
				}
				answered <- err
			}})
			return <-answered
		}
		err := send()
		if errors.Is(err, errEarlier) { // known from the first answer on
			err = send()
		}
		if err != nil {
			t.Fatal(err)
		}
		if m := <-got; m.kind != want || m.group != 3 || string(m.data) != "op" {
			t.Errorf("kind %d of group %d: %q", m.kind, m.group, m.data)
		}
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	l.drop()
	<-ended
}
