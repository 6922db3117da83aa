package query

import (
	"context"
	"math"
	"slices"
	"strings"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/query/partial"
	"github.com/strandline-db/strandline/shard/model"
)

// maxScatters is how many fragments of one query are asked for at a time.
const maxScatters = 8

// scattered is the Queryable of a query over data that lies at several nodes. Once the
// query is built, its aggregations that can be done in parts are; in their place the
// engine finds selectors of the results.
type scattered struct {
	*Queryable
	e     *Engine
	parts []*part
}

// part is one aggregation and its result.
type part struct {
	req   *partial.Request
	place func(parser.Expr) // puts an expression in the aggregation's place
	at    *parser.AggregateExpr

	marker *labels.Matcher // of the selector in its place
	result *partial.Answer // nil: it is not done in parts
}

// scatterable returns the Queryable for a query, nil if no other node is to be asked.
func (e *Engine) scatterable(o *QueryOptions) *scattered {
	// The engine's figures per step would lack what the parts took.
	if e.scatterer == nil || o.Stats && e.opts.PerStepStats || !e.scatterer.Elsewhere() {
		return nil
	}
	return &scattered{Queryable: e.q, e: e}
}

// query returns the query that does what it can of another in parts; starts, if set, says
// whether rate() and kin use start timestamps.
func (s *scattered) query(q promql.Query, text string, starts *bool) promql.Query {
	x := &scatteredQuery{Query: q, s: s, text: text, starts: s.e.opts.StartTimestamps}
	if starts != nil {
		x.starts = *starts
	}
	return x
}

type scatteredQuery struct {
	promql.Query
	s      *scattered
	text   string
	starts bool
}

// Exec implements promql.Query.
func (q *scatteredQuery) Exec(ctx context.Context) *promql.Result {
	if stmt, ok := q.Statement().(*parser.EvalStmt); ok {
		q.s.scatter(ctx, &plan{e: q.s.e, stmt: stmt, text: q.text, starts: q.starts})
	}
	res := q.Query.Exec(ctx)
	q.s.adjust(q.Query.Stats())
	return res
}

// scatter works out what can be done in parts and changes the query accordingly. What
// fails stays as it was: reading the samples gives the result, or the error to show.
func (s *scattered) scatter(ctx context.Context, p *plan) {
	p.walk(p.stmt.Expr, false, func(x parser.Expr) { p.stmt.Expr = x })
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(maxScatters)
	for _, same := range alike(p.parts) {
		eg.Go(func() error {
			var a *partial.Answer
			var err error
			for i, x := range same {
				if i == 0 || len(a.Notes) > 0 { // which say where in the query they are from
					a, err = s.gather(ctx, x.req)
				}
				if err != nil || a.Unfit != "" {
					s.e.opts.Logger.Debug("query: an aggregation is not done in parts", "query", p.text, "unfit", a.Unfit, "err", err)
					return nil
				}
				x.result = a
			}
			return nil
		})
	}
	_ = eg.Wait() // no part's failure is the query's
	for _, x := range p.parts {
		if x.result != nil {
			x.marker = labels.MustNewMatcher(labels.MatchEqual, commonmodel.MetricNameLabel, "partial results")
			// In parentheses, since some functions treat a selector in another way.
			x.place(&parser.ParenExpr{PosRange: x.at.PosRange, Expr: &parser.VectorSelector{
				LabelMatchers: []*labels.Matcher{x.marker}, PosRange: x.at.PosRange,
			}})
			s.parts = append(s.parts, x)
		}
	}
}

// alike groups the parts that ask for the same, at whatever place in the query: what is named
// twice is worked on once, and is the same.
func alike(parts []*part) (groups [][]*part) {
	of := map[string]int{}
	for _, x := range parts {
		req := *x.req
		req.Text = strings.TrimSpace(req.Text)
		b := string(req.Append(nil))
		i, seen := of[b]
		if !seen {
			i, groups = len(groups), append(groups, nil)
			of[b] = i
		}
		groups[i] = append(groups[i], x)
	}
	return groups
}

// gather has one request worked on everywhere.
func (s *scattered) gather(ctx context.Context, req *partial.Request) (*partial.Answer, error) {
	none := &partial.Answer{}
	b := req.Append(nil)
	if len(b) > model.MaxFragmentRequest {
		return none, errUnfit
	}
	all, err := s.e.scatterer.Scatter(ctx, b)
	if err != nil {
		return none, err
	}
	answers := make([]*partial.Answer, len(all))
	for i, b := range all {
		if answers[i], err = partial.ParseAnswer(b, req.Op, req.Steps(), s.e.opts.MaxSamples); err != nil {
			return none, err
		}
	}
	a := partial.Merge(req, answers)
	if req.MaxSeries > 0 && a.Cost.Series > int64(req.MaxSeries) {
		return none, model.TooManySeries(req.MaxSeries)
	}
	return a, nil
}

// adjust makes the statistics those of a query that was not done in parts.
func (s *scattered) adjust(st *stats.Statistics) {
	if st == nil || st.Samples == nil {
		return
	}
	for _, x := range s.parts {
		c, points := x.result.Cost, int64(0)
		for _, g := range x.result.Groups {
			for _, n := range g.N {
				if n > 0 {
					points++
				}
			}
		}
		st.Samples.SamplesRead += c.SamplesRead - points
		if x.req.Once {
			points *= int64(stepsOf(x.req))
		}
		st.Samples.TotalSamples += c.Samples - points
		st.Samples.TotalSeries += c.Series - int64(len(x.result.Groups))
		st.Samples.PeakSamples = max(st.Samples.PeakSamples, int(c.Peak))
	}
}

// Querier implements storage.Queryable.
func (s *scattered) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return &scatteredQuerier{q, s}, err
}

type scatteredQuerier struct {
	storage.Querier
	s *scattered
}

// Select implements storage.Querier.
func (q *scatteredQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	i := slices.IndexFunc(q.s.parts, func(p *part) bool { return len(ms) == 1 && ms[0] == p.marker })
	if i < 0 {
		return q.Querier.Select(ctx, sorted, hints, ms...)
	}
	return &partSet{part: q.s.parts[i], next: -1}
}

// partSet is the result of a part as series.
type partSet struct {
	part *part
	next int
}

// Next implements storage.SeriesSet.
func (s *partSet) Next() bool {
	s.next++
	return s.next < len(s.part.result.Groups)
}

// At implements storage.SeriesSet.
func (s *partSet) At() storage.Series {
	return &partSeries{req: s.part.req, points: s.part.result.Groups[s.next]}
}

// Err implements storage.SeriesSet.
func (*partSet) Err() error { return nil }

// Warnings implements storage.SeriesSet.
func (s *partSet) Warnings() annotations.Annotations {
	var out annotations.Annotations
	for _, n := range s.part.result.Notes {
		out.Add(newFarNote(n))
	}
	return out
}

// partSeries is one group: a sample at each step, a stale marker where there is none, so
// that nothing before it counts there.
type partSeries struct {
	req    *partial.Request
	points *partial.Points
}

// Labels implements storage.Series.
func (s *partSeries) Labels() labels.Labels { return s.points.Labels }

// Iterator implements storage.Series.
func (s *partSeries) Iterator(chunkenc.Iterator) chunkenc.Iterator {
	return &partIterator{s: s, start: s.req.Start.UnixMilli(), step: max(1, s.req.Step.Milliseconds()), i: -1}
}

type partIterator struct {
	s           *partSeries
	start, step int64
	i           int
}

// Next implements chunkenc.Iterator.
func (it *partIterator) Next() chunkenc.ValueType {
	it.i = min(it.i+1, len(it.s.points.V))
	return it.at()
}

func (it *partIterator) at() chunkenc.ValueType {
	if it.i >= len(it.s.points.V) {
		return chunkenc.ValNone
	}
	return chunkenc.ValFloat
}

// Seek implements chunkenc.Iterator.
func (it *partIterator) Seek(t int64) chunkenc.ValueType {
	if n := (t - it.start + it.step - 1) / it.step; t > it.start {
		it.i = max(it.i, int(min(n, int64(len(it.s.points.V)))))
	}
	it.i = max(it.i, 0)
	return it.at()
}

// At implements chunkenc.Iterator.
func (it *partIterator) At() (int64, float64) {
	if it.s.points.N[it.i] == 0 {
		return it.AtT(), math.Float64frombits(value.StaleNaN)
	}
	return it.AtT(), it.s.points.V[it.i]
}

// AtHistogram implements chunkenc.Iterator: there are none.
func (it *partIterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	return it.AtT(), nil
}

// AtFloatHistogram implements chunkenc.Iterator: there are none.
func (it *partIterator) AtFloatHistogram(*histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return it.AtT(), nil
}

// AtT implements chunkenc.Iterator.
func (it *partIterator) AtT() int64 { return it.start + int64(it.i)*it.step }

// AtST implements chunkenc.Iterator.
func (*partIterator) AtST() int64 { return 0 }

// Err implements chunkenc.Iterator.
func (*partIterator) Err() error { return nil }
