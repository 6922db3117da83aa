package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// noSelect is a reader that can only be asked to work.
type noSelect struct {
	model.Scatterer
	selects atomic.Int64
}

func (r *noSelect) SelectAll(context.Context, []*model.SelectRequest) ([]*model.Selection, error) {
	r.selects.Add(1)
	return nil, errors.New("samples are read")
}

// working gives every node a query engine, which works for the others.
func (c *trio) working() map[string]*query.Engine {
	c.t.Helper()
	out := map[string]*query.Engine{}
	for name, m := range c.nodes {
		q, err := query.New(m.node.Reader(), nil)
		if err != nil {
			c.t.Fatal(err)
		}
		m.node.Work(q.Fragment)
		out[name] = q
	}
	return out
}

func (c *trio) ask(q *query.Engine, at string, w Wanted, expr string, to int64) (string, context.Context, error) {
	ctx, _, err := c.nodes[at].node.Sync(c.t.Context(), w)
	if err != nil {
		return "", ctx, err
	}
	res, err := q.Range(ctx, expr, time.Unix(0, 0), time.Unix(to, 0), 5*time.Second, query.QueryOptions{})
	if err != nil {
		return "", ctx, err
	}
	defer res.Close()
	return res.String(), ctx, nil
}

// TestWorkElsewhere: a node that holds nothing has aggregations worked out where the
// data is, reads no samples for them, and answers as one that holds everything.
func TestWorkElsewhere(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 20 * time.Second})
	c.mustWrite("n1", 0, 60)
	c.join("n4", "n1")
	engines := c.working()
	blind := &noSelect{Scatterer: c.nodes["n4"].node.Reader().(model.Scatterer)}
	q, err := query.New(blind, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range []string{
		`count(m)`, `sum(rate(m[20s]))`, `max by (s) (m)`, `avg without (s) (m * 2)`, `min(m{s=~"[1-3]"}) / sum(m)`,
		`topk(2, sum by (s) (increase(m[10s] offset 5s)))`, `group(m @ 30)`, `count(nothing)`, `sum(m) or vector(0)`,
	} {
		want, _, err := c.ask(engines["n1"], "n1", Wanted{Level: Linearizable}, expr, 60)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := c.ask(q, "n4", Wanted{Level: Linearizable}, expr, 60)
		if err != nil || !alike(got, want) {
			t.Errorf("%s: %v\nn4: %s\nn1: %s", expr, err, got, want)
		}
	}
	if n := blind.selects.Load(); n > 0 {
		t.Errorf("%d selections", n)
	}
	// Whatever can't be done in parts is read.
	want, _, err := c.ask(engines["n1"], "n1", Wanted{Level: Linearizable}, `quantile(0.5, m)`, 60)
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := c.ask(engines["n4"], "n4", Wanted{Level: Linearizable}, `quantile(0.5, m)`, 60); err != nil || got != want {
		t.Errorf("%v\nn4: %s\nn1: %s", err, got, want)
	}
	c.noWork()
}

// TestWorkPair: what a pair of senders wrote is joined and worked out where it is, and
// gives bit for bit what is joined by the node that asks.
func TestWorkPair(t *testing.T) {
	c := emptyTrio(t, Options{CommitTimeout: 20 * time.Second}, nil)
	c.engine = func(_ string, o *engine.Options) { o.PairLabel = "__replica__" }
	c.startAll()
	c.appendPair("n2", 0, 100, func(sender string, i int) bool {
		return sender == "a" && i > 20 && i < 60 || sender == "b" && i > 70 && i < 90
	})
	c.join("n4", "n1")
	c.working()
	far := c.nodes["n4"].node.Reader().(model.Scatterer)
	blind := &noSelect{Scatterer: far}
	parts, err := query.New(query.NewPairReader(blind, "__replica__"), nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := query.New(query.NewPairReader(struct{ model.Reader }{far}, "__replica__"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range []string{
		`count(p)`, `sum(count_over_time(p[10m]))`, `max by (s) (rate(p[1m]))`, `sum by (__replica__) (p)`, `min(timestamp(p))`,
		`count by (__replica__) (p{__replica__=~"a|b"})`,
	} {
		want, _, err := c.ask(plain, "n4", Wanted{Level: Linearizable}, expr, 1500)
		if err != nil || want == "" {
			t.Fatalf("%q, %v", want, err)
		}
		if got, _, err := c.ask(parts, "n4", Wanted{Level: Linearizable}, expr, 1500); err != nil || got != want {
			t.Errorf("%s: %v\nin parts: %s\nread: %s", expr, err, got, want)
		}
	}
	if n := blind.selects.Load(); n > 0 {
		t.Errorf("%d selections", n)
	}
}

// alike compares results up to the last digits of sums.
func alike(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		var v, w float64
		if x[i] != y[i] {
			if _, err := fmt.Sscan(x[i], &v); err != nil {
				return false
			}
			if _, err := fmt.Sscan(y[i], &w); err != nil || math.Abs(v-w) > 1e-12*math.Abs(w) {
				return false
			}
		}
	}
	return true
}

// noWork waits until no node works for another.
func (c *trio) noWork() {
	c.t.Helper()
	for name, m := range c.nodes {
		c.await("no work left at "+name, func() error {
			if n := m.node.works.count(); n > 0 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
	}
}

// TestWorkSeesWrites: with the token of a write, work that is done elsewhere covers it.
func TestWorkSeesWrites(t *testing.T) {
	c := newTrio(t, Options{})
	c.join("n4", "n1")
	c.working()
	q, err := query.New(&noSelect{Scatterer: c.nodes["n4"].node.Reader().(model.Scatterer)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(30) {
		b := &model.Batch{T: []int64{i * 5000}, V: []float64{1}}
		b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "w", "i", fmt.Sprint(i))), To: 1})
		res, err := c.nodes[[]string{"n1", "n2", "n4"}[i%3]].db.Append(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := c.ask(q, "n4", Wanted{Level: Stale, Applied: res.Applied}, `count(last_over_time(w[1h]))`, i*5)
		if want := fmt.Sprintf("%d @[%d]", i+1, i*5000); err != nil || !strings.HasSuffix(got, want) {
			t.Fatalf("after write %d: %v, %s", i, err, got)
		}
	}
}

// workless is four nodes of which n4 holds nothing, and its reader. At level stale no leader
// is needed, which a busy machine may lack for a while.
func workless(t *testing.T) (c *trio, n *Node, r model.Scatterer, stale func(context.Context) context.Context) {
	c = newTrio(t, Options{CommitTimeout: 2 * time.Second})
	c.await("a write", func() error { return c.write("n1", 0, 20) })
	c.join("n4", "n1")
	n = c.nodes["n4"].node
	c.await("a read", func() error {
		_, _, err := n.Sync(t.Context(), Wanted{Level: Linearizable})
		return err
	})
	return c, n, n.Reader().(model.Scatterer), func(ctx context.Context) context.Context {
		ctx, _, err := n.Sync(ctx, Wanted{Level: Stale})
		if err != nil {
			t.Fatal(err)
		}
		return ctx
	}
}

// TestWorkEnds: work that takes longer than a connection may be silent gets done, and work
// that nobody waits for any more ends.
func TestWorkEnds(t *testing.T) {
	c, _, r, stale := workless(t)
	began, ended := make(chan struct{}, 10), make(chan error, 10)
	var long atomic.Bool
	for _, m := range c.nodes {
		m.node.Work(func(ctx context.Context, _ model.Reader, request []byte) ([]byte, error) {
			if long.Load() {
				time.Sleep(silence + silence/4)
				return request, nil
			}
			began <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
	}
	ctx, cancel := context.WithCancel(stale(t.Context()))
	failed := make(chan error, 1)
	go func() { _, err := r.Scatter(ctx, []byte("x")); failed <- err }()
	<-began
	cancel()
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	<-ended
	c.noWork()

	long.Store(true)
	if out, err := r.Scatter(stale(t.Context()), []byte("x")); err != nil || len(out) == 0 || string(out[0]) != "x" {
		t.Errorf("%q, %v", out, err)
	}
	c.noWork()
}

// TestWorkFails: a node that can't work is passed over, what is too large is refused, and
// without any node the query is partial if that was asked for.
func TestWorkFails(t *testing.T) {
	c, n, r, stale := workless(t)
	for name, m := range c.nodes {
		m.node.Work(func(context.Context, model.Reader, []byte) ([]byte, error) {
			if name != "n2" {
				return nil, fmt.Errorf("%w: for the test", model.ErrOverloaded)
			}
			return []byte(name), nil
		})
	}
	out, err := r.Scatter(stale(t.Context()), []byte("x"))
	if err != nil || len(out) == 0 || string(out[0]) != "n2" {
		t.Errorf("%q, %v", out, err)
	}
	if _, err := r.Scatter(stale(t.Context()), make([]byte, model.MaxFragmentRequest+1)); !errors.Is(err, model.ErrLimit) {
		t.Errorf("a large request: %v", err)
	}
	c.nodes["n2"].node.Work(func(context.Context, model.Reader, []byte) ([]byte, error) {
		return make([]byte, model.MaxFragmentAnswer+1), nil
	})
	if _, err := r.Scatter(stale(t.Context()), []byte("x")); err == nil {
		t.Error("a large answer is taken")
	}

	c.net.isolate(c.peers["n4"], true)
	pctx, _, err := n.Sync(t.Context(), Wanted{Level: Leader, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	before := len(Warnings(pctx))
	if _, err := r.Scatter(pctx, []byte("x")); !errors.Is(err, model.ErrUnavailable) || len(Warnings(pctx)) != before {
		t.Errorf("all or nothing: %v, %v", err, Warnings(pctx))
	}
	q, err := query.New(n.Reader(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, qctx, err := c.ask(q, "n4", Wanted{Level: Leader, Partial: true}, `count(m) or vector(7)`, 0)
	if w := strings.Join(Warnings(qctx), "; "); err != nil || !strings.Contains(got, "7 @") || !strings.Contains(w, "are missing") {
		t.Errorf("%s, %v, %s", got, err, w)
	}
	if _, err := r.Scatter(t.Context(), []byte("x")); !errors.Is(err, model.ErrUnavailable) {
		t.Errorf("alone: %v", err)
	}
	c.net.isolate(c.peers["n4"], false)
}

// TestMetadataAlone: a read of metadata needs no shard. It is partial if that was asked for and
// the metadata's leader is not heard.
func TestMetadataAlone(t *testing.T) {
	c, n, _, _ := workless(t)
	md := model.Metadata{Metric: "m", Type: "counter", Help: "h"}
	if err := n.Describe(t.Context(), []model.Metadata{md}); err != nil {
		t.Fatal(err)
	}
	read := func(w Wanted) (age time.Duration, warnings []string, err error) {
		ctx, age, err := n.Sync(t.Context(), w)
		if err != nil {
			return age, nil, err
		}
		got, err := n.Reader().Metadata(ctx, "m")
		if err == nil && (len(got) != 1 || got[0] != md) {
			err = fmt.Errorf("got %v", got)
		}
		return age, Warnings(ctx), err
	}
	if age, warnings, err := read(Wanted{Level: Linearizable, Metadata: true}); err != nil || len(warnings) > 0 || age != 0 {
		t.Errorf("%v, %v, %v", age, warnings, err)
	}
	c.net.isolate(c.peers["n4"], true)
	c.await("shards that can't be read", func() error {
		if _, _, err := n.Sync(t.Context(), Wanted{Level: Stale}); !errors.Is(err, model.ErrUnavailable) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if age, warnings, err := read(Wanted{Level: Stale, Metadata: true}); err != nil || len(warnings) > 0 || age <= 0 {
		t.Errorf("stale: %v, %v, %v", age, warnings, err)
	}
	if _, _, err := read(Wanted{Level: Leader, Metadata: true}); !errors.Is(err, model.ErrUnavailable) {
		t.Errorf("leader: %v", err)
	}
	if _, warnings, err := read(Wanted{Level: Leader, Metadata: true, Partial: true}); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "may be older") {
		t.Errorf("partial: %v, %v", warnings, err)
	}
	c.net.isolate(c.peers["n4"], false)
}

func FuzzWork(f *testing.F) {
	f.Add(putWork(&workRequest{1, 2, time.Second, []int{1, 5}, []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &decoder{b: b}
		w := d.work()
		if d.end() != nil {
			return
		}
		again := &decoder{b: putWork(w)}
		if x := again.work(); again.end() != nil || fmt.Sprint(x) != fmt.Sprint(w) {
			t.Fatalf("%v, want %v", x, w)
		}
	})
}
