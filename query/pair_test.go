package query_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
)

const pairInterval = 15_000

// pairStore holds a counter as two senders scrape it, each while alive says so, and
// a series that only one knows.
func pairStore(t *testing.T, until int64, alive func(sender int, t int64) bool) *querytest.Store {
	t.Helper()
	s := querytest.New()
	for sender, phase := range []int64{2_000, 9_000} {
		b := &model.Batch{}
		for at := phase; at < until; at += pairInterval {
			if alive(sender, at) {
				b.T, b.V = append(b.T, at), append(b.V, float64(at)/1000)
			}
		}
		ls := labels.FromStrings("__name__", "seconds_total", "job", "x", "replica", fmt.Sprint("r", sender))
		b.Series = []model.BatchSeries{{Key: model.AppendKey(nil, ls), From: 0, To: len(b.T), ETo: 1}}
		b.Exemplars = []model.Exemplar{{T: phase, Value: 1}}
		if sender == 0 {
			b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "seconds_total", "job", "alone")), To: len(b.T)})
		}
		if _, err := s.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestPairCounts: what reads drop of a pair is counted, and where they go on with the other
// sender; at the nodes that work on fragments too.
func TestPairCounts(t *testing.T) {
	// The first sender is away for three minutes of ten.
	store := pairStore(t, pair.Bucket, func(sender int, at int64) bool { return sender == 1 || at < 240_000 || at >= 420_000 })
	per := uint64(pair.Bucket / pairInterval)
	reader := query.NewPairReader(store, "replica")
	s := &spread{Reader: store, nodes: 2, label: "replica"}
	far := query.NewPairReader(s, "replica")
	farEngine := newPairEngine(t, far)
	s.work = farEngine.Fragment
	for e, of := range map[*query.Engine]*query.PairReader{newPairEngine(t, reader): reader, farEngine: far} {
		res, err := e.Instant(context.Background(), `count(count_over_time(seconds_total{job="x"}[10m]))`, time.UnixMilli(pair.Bucket), query.QueryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		res.Close()
		// The other sender has more samples and wins the bucket: all of the first go.
		if got, want := of.Dropped(), per-180_000/pairInterval; got != want || of.Switches() != 0 {
			t.Errorf("%d dropped, want %d; %d switches", got, want, of.Switches())
		}
	}
	both := pairStore(t, 2*pair.Bucket, func(sender int, at int64) bool { return (sender == 0) == (at < pair.Bucket) })
	reader = query.NewPairReader(both, "replica")
	res, err := newPairEngine(t, reader).Instant(context.Background(), `count_over_time(seconds_total{job="x"}[20m])`, time.UnixMilli(2*pair.Bucket), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	res.Close()
	if reader.Dropped() != 0 || reader.Switches() != 1 {
		t.Errorf("%d dropped, %d switches, want 0 and 1", reader.Dropped(), reader.Switches())
	}
}

func newPairEngine(t *testing.T, r model.Reader) *query.Engine {
	t.Helper()
	e, err := query.New(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestPairLeavesNoGap: while one sender or the other is away, there is one series, its
// rate is right at every step, and it has as many samples as one sender would give.
func TestPairLeavesNoGap(t *testing.T) {
	const until = 4 * pair.Bucket
	store := pairStore(t, until, func(sender int, at int64) bool {
		if sender == 0 {
			return at < 7*60_000 || at > 16*60_000
		}
		return at < 18*60_000 || at > 27*60_000
	})
	e := newPairEngine(t, query.NewPairReader(store, "replica"))
	start := time.UnixMilli(2 * 60_000)
	res, err := e.Range(context.Background(), `rate(seconds_total{job="x"}[1m])`, start, time.UnixMilli(until), 5*time.Second, query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	m := res.Value.(promql.Matrix)
	if len(m) != 1 || m[0].Metric.String() != `{job="x"}` {
		t.Fatalf("got series %v", m)
	}
	if want := (until-2*60_000)/5000 + 1; len(m[0].Floats) != want {
		t.Fatalf("%d steps have a rate, want %d", len(m[0].Floats), want)
	}
	for _, p := range m[0].Floats {
		if math.Abs(p.F-1) > 0.25 {
			t.Errorf("rate %g at %d, want about 1", p.F, p.T)
		}
	}
	count, err := e.Instant(context.Background(), `count_over_time(seconds_total{job="x"}[40m])`, time.UnixMilli(until), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer count.Close()
	if n := count.Value.(promql.Vector)[0].F; math.Abs(n-until/pairInterval) > 8 {
		t.Errorf("%g samples, want about %d", n, until/pairInterval)
	}
}

func TestPairReader(t *testing.T) {
	ctx := context.Background()
	store := pairStore(t, pair.Bucket, func(int, int64) bool { return true })
	r := query.NewPairReader(store, "replica")
	all := &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64}
	names, err := r.LabelNames(ctx, all)
	if err != nil || !slices.Equal(names, []string{"__name__", "job"}) {
		t.Errorf("label names %v, %v", names, err)
	}
	one := *all
	one.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "replica", "r1")}
	sel, err := model.Select(ctx, r, &one)
	if err != nil || len(sel.Series) != 1 || sel.Series[0].Labels().Get("replica") != "r1" {
		t.Fatalf("a matcher on the label sees what is stored: %v, %v", sel, err)
	}
	sel.Close()
	part := *all
	part.MinT, part.MaxT = 60_000, 120_000
	if sel, err = model.Select(ctx, r, &part); err != nil || len(sel.Series) != 2 {
		t.Fatalf("%v, %v", sel, err)
	}
	for _, s := range sel.Series {
		var c model.Columns
		if err := s.Read(&c); err != nil {
			t.Fatal(err)
		}
		if n := len(c.T); n != 4 || c.T[0] < part.MinT || c.T[n-1] > part.MaxT {
			t.Errorf("%s: times %v", s.Labels(), c.T)
		}
	}
	sel.Close()
	ex, err := r.Exemplars(ctx, all)
	if err != nil || len(ex) != 1 || len(ex[0].Exemplars) != 2 || ex[0].Labels.Has("replica") {
		t.Errorf("exemplars %+v, %v", ex, err)
	}
	part.MaxSeries = 1
	if _, err := model.Select(ctx, r, &part); err == nil {
		t.Error("the limit of series does not hold")
	}
	if n := store.Open(); n != 0 {
		t.Errorf("%d selections are open", n)
	}
}

// coming is a storage that gets a batch before one of its looks.
type coming struct {
	*querytest.Store
	looks int // before it comes
	b     *model.Batch
}

func (c *coming) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	if c.looks--; c.looks < 0 && c.b != nil {
		if _, err := c.Append(ctx, c.b); err != nil {
			return nil, err
		}
		c.b = nil
	}
	return c.Store.SelectAll(ctx, reqs)
}

// TestPairComes: a pair that is there only when another selector's buckets are looked at whole
// is shown as one series too.
func TestPairComes(t *testing.T) {
	c := &coming{Store: pairStore(t, pair.Bucket, func(int, int64) bool { return true }), looks: 1, b: &model.Batch{}}
	for _, sender := range []string{"r0", "r1"} {
		key := model.AppendKey(nil, labels.FromStrings("__name__", "new_total", "replica", sender))
		c.b.Series = append(c.b.Series, model.BatchSeries{Key: key, From: len(c.b.T), To: len(c.b.T) + 1})
		c.b.T, c.b.V = append(c.b.T, 60_000), append(c.b.V, 1)
	}
	r := query.NewPairReader(c, "replica")
	var reqs []*model.SelectRequest
	for _, name := range []string{"seconds_total", "new_total"} {
		reqs = append(reqs, &model.SelectRequest{MinT: 50_000, MaxT: 70_000, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", name)}})
	}
	sels, err := r.SelectAll(t.Context(), reqs)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range []int{2, 1} {
		if list := sels[k].Series; len(list) != want || slices.ContainsFunc(list, func(s model.Series) bool { return s.Labels().Has("replica") }) {
			t.Errorf("selector %d shows %d series, want %d: %v", k, len(list), want, list[0].Labels())
		}
	}
	model.CloseAll(sels)
	if n := c.Open(); n != 0 {
		t.Errorf("%d selections left open", n)
	}
}
