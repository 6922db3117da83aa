package query_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
)

// spread is a reader whose series lie at several nodes, by the hash of their labels, all
// but one if it has a name.
type spread struct {
	model.Reader
	nodes int
	label string
	work  model.FragmentFunc
	asked atomic.Int64
}

func (s *spread) Elsewhere() bool { return s.nodes > 1 }

func (s *spread) Scatter(ctx context.Context, request []byte) ([][]byte, error) {
	var out [][]byte
	for i := range s.nodes {
		s.asked.Add(1)
		b, err := s.work(ctx, &share{s.Reader, i, s.nodes, s.label}, request)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// share is what one node holds.
type share struct {
	model.Reader
	i, nodes int
	label    string
}

func (s *share) PairLabel() string { return s.label }

func (s *share) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	all, err := s.Reader.SelectAll(ctx, reqs)
	for i, sel := range all {
		all[i] = s.of(sel)
	}
	return all, err
}

func (s *share) of(sel *model.Selection) *model.Selection {
	out := &model.Selection{Release: sel.Close}
	for _, x := range sel.Series {
		key := model.AppendKey(nil, x.Labels())
		hash := model.HashKey(key)
		if s.label != "" {
			hash = model.PairHash(key, hash, s.label)
		}
		if model.ShardOf(hash, s.nodes) == s.i {
			out.Series = append(out.Series, x)
		}
	}
	return out
}

// spreadEngine returns an engine over the series of r at some nodes.
func spreadEngine(t testing.TB, r model.Reader, nodes int, o *query.Options) (*query.Engine, *spread) {
	t.Helper()
	s := &spread{Reader: r, nodes: nodes}
	e, err := query.New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	s.work = e.Fragment
	return e, s
}

// suiteEngine runs upstream's suite over an engine of its own for each storage.
type suiteEngine struct {
	promql.QueryEngine
	t       *testing.T
	parts   int
	storage *querytest.Storage
	engine  *query.Engine // over that
}

type suiteQuery struct {
	promql.Query
	s     *suiteEngine
	parts func() int
}

func (q *suiteQuery) Exec(ctx context.Context) *promql.Result {
	res := q.Query.Exec(ctx)
	q.s.parts += q.parts()
	return res
}

func (s *suiteEngine) query(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error) {
	if st := q.(*querytest.Storage); st != s.storage {
		s.storage = st
		s.engine, _ = spreadEngine(s.t, st.W, 3, suiteOptions())
	}
	qry, parts, err := s.engine.Scattered(ctx, o, qs, start, end, step)
	if err != nil {
		return nil, err
	}
	return &suiteQuery{qry, s, parts}, nil
}

func (s *suiteEngine) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	return s.query(ctx, q, o, qs, ts, ts, 0)
}

func (s *suiteEngine) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, qs string, start, end time.Time, step time.Duration) (promql.Query, error) {
	return s.query(ctx, q, o, qs, start, end, step)
}

// TestBuiltinScattered runs upstream's suite over data that lies at three nodes; nothing
// is skipped.
func TestBuiltinScattered(t *testing.T) {
	e, err := query.New(querytest.New(), suiteOptions())
	if err != nil {
		t.Fatal(err)
	}
	s := &suiteEngine{QueryEngine: e.Upstream(), t: t}
	promqltest.RunBuiltinTestsWithStorage(t, s, func(testing.TB) storage.Storage {
		st := querytest.New()
		return &querytest.Storage{Queryable: query.NewQueryable(st, nil), W: st}
	})
	t.Logf("%d aggregations were done in parts", s.parts)
	if s.parts < 200 {
		t.Error("too few")
	}
}

// TestScatterPair: series of a pair of senders are joined before anything is worked out:
// where they are if placement keeps them together, here if they may lie at different
// nodes. Others are not held up by that.
func TestScatterPair(t *testing.T) {
	store := pairStore(t, pair.Bucket, func(int, int64) bool { return true })
	s := &spread{Reader: store, nodes: 4}
	far := newPairEngine(t, query.NewPairReader(s, "replica"))
	s.work = far.Fragment
	blind := newPairEngine(t, query.NewPairReader(&noSelect{s}, "replica"))
	whole := newPairEngine(t, query.NewPairReader(store, "replica"))
	placed := newPairEngine(t, query.NewPairReader(&noSelect{&spread{Reader: store, nodes: 4, label: "replica", work: far.Fragment}}, "replica"))
	other := newPairEngine(t, query.NewPairReader(&noSelect{&spread{Reader: store, nodes: 4, label: "job", work: far.Fragment}}, "replica"))
	for expr, apart := range map[string]bool{
		`count(seconds_total)`: false, `sum(rate(seconds_total[1m]))`: false, `count(seconds_total{job="x"})`: false,
		`count(seconds_total{job="alone"})`: true, `sum(rate(seconds_total{job="alone"}[1m]))`: true,
		`count(seconds_total{replica=~".+"})`: true, `count by (replica) (seconds_total{replica!="r1"})`: true,
	} {
		ask := func(e *query.Engine) (string, error) {
			res, err := e.Instant(context.Background(), expr, time.UnixMilli(pair.Bucket), query.QueryOptions{})
			if err != nil {
				return "", err
			}
			defer res.Close()
			return res.String(), nil
		}
		want, err := ask(whole)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ask(far); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", expr, got, err, want)
		}
		if got, err := ask(placed); err != nil || got != want {
			t.Errorf("%s where the senders' series lie together: %s, %v, want %s", expr, got, err, want)
		}
		for _, e := range []*query.Engine{blind, other} {
			if got, err := ask(e); (err == nil) != apart || err == nil && got != want {
				t.Errorf("%s done in parts: %s, %v", expr, got, err)
			}
		}
	}
}

// TestScatterBatches: histograms that come in a later batch find the sample before them.
func TestScatterBatches(t *testing.T) {
	store := querytest.New()
	load(t, store, 20, 100)
	h := &histogram.Histogram{Count: 1, Sum: 1, PositiveSpans: []histogram.Span{{Length: 1}}, PositiveBuckets: []int64{1}}
	b := &model.Batch{Hist: []model.HistogramSample{{T: 1000, H: h}, {T: 99_000, H: h}}}
	b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "n", "i", "1")), HTo: 2})
	if _, err := store.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	s := &spread{Reader: store, nodes: 2}
	e := engine(t, &noSelect{s}, nil)
	e.SetBatchPoints(1)
	s.work = e.Fragment
	res, err := e.Instant(context.Background(), `count(last_over_time({i="1"}[2s]))`, time.Unix(99, 0), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if got := res.String(); got != "{} => 2 @[99000]" {
		t.Errorf("%s", got)
	}
}

// TestScatterOnce: what a query aggregates twice is asked for once, so that it is the same
// although more is stored meanwhile.
func TestScatterOnce(t *testing.T) {
	a := &advancing{Store: querytest.New()}
	e, s := spreadEngine(t, a, 3, nil)
	for expr, fragments := range map[string]int64{"sum(x) - sum(x)": 1, "sum(x) / sum(x) - count(x)": 2, `sum(x) - sum(x{a=""})`: 2} {
		s.asked.Store(0)
		res, err := e.Instant(t.Context(), expr, time.Unix(1, 0), query.QueryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if v := res.Value.(promql.Vector); fragments < 2 && (len(v) != 1 || v[0].F != 0) {
			t.Errorf("%s is %v", expr, v)
		}
		if got := s.asked.Load(); got != 3*fragments {
			t.Errorf("%s: the nodes are asked %d times, want %d", expr, got, 3*fragments)
		}
		res.Close()
	}
}

// noSelect is a reader that can only be asked to work.
type noSelect struct{ *spread }

func (*noSelect) SelectAll(context.Context, []*model.SelectRequest) ([]*model.Selection, error) {
	return nil, model.ErrUnavailable
}

// TestScatterLimits: the limits of a query hold over all nodes, what goes past one of them
// fails as it would at one node, and while all data is here nobody is asked.
func TestScatterLimits(t *testing.T) {
	store := querytest.New()
	load(t, store, 50, 100)
	for _, c := range []struct {
		expr string
		o    query.Options
	}{
		{"sum(m)", query.Options{MaxSeries: 49}},
		{"sum(m)", query.Options{MaxSamples: 50}},
		{"count(count by (i) (m))", query.Options{MaxSamples: 40}},
		{"sum(rate({__name__=~\"m|n\"}[1m])) + on () m", query.Options{}},
	} {
		o := c.o
		_, want := engine(t, store, &c.o).Instant(context.Background(), c.expr, time.Unix(99, 0), query.QueryOptions{})
		far, s := spreadEngine(t, store, 3, &o)
		_, err := far.Instant(context.Background(), c.expr, time.Unix(99, 0), query.QueryOptions{})
		if want == nil || err == nil || err.Error() != want.Error() || query.KindOf(err) != query.KindOf(want) {
			t.Errorf("%s: %v, want %v", c.expr, err, want)
		}
		if n := store.Open(); n != 0 {
			t.Errorf("%s: %d selections are open", c.expr, n)
		}
		s.nodes, s.work = 1, nil
		if _, err := far.Instant(context.Background(), "count(m @ 1)", time.Unix(99, 0), query.QueryOptions{}); c.o.MaxSeries > 0 && query.KindOf(err) != query.Execution {
			t.Error(err)
		}
	}
	far, s := spreadEngine(t, store, 3, &query.Options{MaxConcurrent: 1, MaxQueued: -1})
	ctx, cancel := context.WithCancel(context.Background())
	work := s.work
	s.work = func(ctx context.Context, r model.Reader, request []byte) ([]byte, error) {
		cancel()
		return work(ctx, r, request)
	}
	if _, err := far.Instant(ctx, "sum(m)", time.Unix(99, 0), query.QueryOptions{}); query.KindOf(err) != query.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	if n := store.Open(); n != 0 {
		t.Errorf("%d selections are open", n)
	}
}

// BenchmarkScatter is an aggregation of many series over a range, at one node, and at
// three of which each works on its own.
func BenchmarkScatter(b *testing.B) {
	store := querytest.New()
	load(b, store, 2000, 60)
	for _, nodes := range []int{1, 3} {
		b.Run(map[int]string{1: "here", 3: "scattered"}[nodes], func(b *testing.B) {
			e, _ := spreadEngine(b, store, nodes, nil)
			for b.Loop() {
				res, err := e.Range(context.Background(), "sum(rate(m[30s]))", time.Unix(0, 0), time.Unix(60, 0), time.Second, query.QueryOptions{})
				if err != nil {
					b.Fatal(err)
				}
				res.Close()
			}
		})
	}
}
