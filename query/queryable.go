package query

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/strandline-db/strandline/shard/model"
)

// pooledColumnsMax is the most samples whose memory is kept for reuse: 16 MiB of
// times and values, so that one wide query does not stay in memory for ever.
const pooledColumnsMax = 1 << 20

// Limits bound what one querier may read. 0: no limit.
type Limits struct {
	MaxSeries  int   // of one Select
	MaxSamples int64 // decoded and held at a time
}

// Queryable reads a model.Reader through Prometheus' storage interfaces. It is
// safe for concurrent use.
type Queryable struct {
	r      model.Reader
	limits Limits
	pool   *sync.Pool // *model.Columns
}

var (
	_ storage.Queryable         = (*Queryable)(nil)
	_ storage.ExemplarQueryable = (*Queryable)(nil)
)

// NewQueryable returns a Queryable over r; nil limits mean none.
func NewQueryable(r model.Reader, limits *Limits) *Queryable {
	q := &Queryable{r: r, pool: &sync.Pool{New: func() any { return &model.Columns{} }}}
	if limits != nil {
		q.limits = *limits
	}
	return q
}

// Querier implements storage.Queryable; the times are in milliseconds, inclusive.
func (q *Queryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{Queryable: q, mint: mint, maxt: maxt}, nil
}

type querier struct {
	*Queryable
	mint, maxt int64
	samples    atomic.Int64 // decoded and held
	lookingUp  sync.Mutex   // held while pending sets are looked up
	mu         struct {
		sync.Mutex
		pending    []*seriesSet
		selections []*model.Selection
		iterators  []*iterator
	}
}

// Select implements storage.Querier. The series are always sorted. They are looked up when
// the first of a query's sets is: all at once, so that what a query names twice is the same.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	req := &model.SelectRequest{MinT: q.mint, MaxT: q.maxt, Matchers: ms, MaxSeries: q.limits.MaxSeries}
	s := &seriesSet{prior: &prior{q: q, ctx: ctx, req: req}, pending: true}
	if hints != nil {
		req.MinT, req.MaxT, s.limit = hints.Start, hints.End, hints.Limit
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.pending = append(q.mu.pending, s)
	return s
}

// lookUp makes the pending sets ones with series, or with an error.
func (q *querier) lookUp(ctx context.Context) {
	q.lookingUp.Lock()
	defer q.lookingUp.Unlock()
	q.mu.Lock()
	sets := q.mu.pending
	q.mu.pending = nil
	q.mu.Unlock()
	if len(sets) == 0 {
		return // another has done it meanwhile
	}
	reqs, of := distinct(sets)
	sels, err := q.r.SelectAll(ctx, reqs)
	q.pin(sels...)
	for i, s := range sets {
		if s.err = err; err == nil {
			s.list = sels[of[i]].Series
		}
		if s.limit > 0 && len(s.list) > s.limit {
			s.list = s.list[:s.limit]
		}
	}
}

// distinct returns what the sets ask for, each once, and by set which of that is its own.
func distinct(sets []*seriesSet) (reqs []*model.SelectRequest, of []int) {
	for _, s := range sets {
		i := slices.IndexFunc(reqs, s.prior.req.Equal)
		if i < 0 {
			i, reqs = len(reqs), append(reqs, s.prior.req)
		}
		of = append(of, i)
	}
	return reqs, of
}

// pin keeps selections until Close.
func (q *querier) pin(sels ...*model.Selection) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.selections = append(q.mu.selections, sels...)
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	vals, err := q.r.LabelValues(ctx, name, &model.SelectRequest{MinT: q.mint, MaxT: q.maxt, Matchers: ms})
	vals, _ = hints.ApplyLimit(vals)
	return vals, nil, err
}

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, err := q.r.LabelNames(ctx, &model.SelectRequest{MinT: q.mint, MaxT: q.maxt, Matchers: ms})
	names, _ = hints.ApplyLimit(names)
	return names, nil, err
}

// Close implements storage.LabelQuerier: it unpins what was selected and gives
// the columns back. It may be called more than once.
func (q *querier) Close() error {
	q.recycle()
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.mu.selections {
		s.Close()
	}
	q.mu.selections = nil
	return nil
}

// recycle gives the columns back; no iterator that there is may be used after.
func (q *querier) recycle() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.mu.iterators {
		if cap(it.cols.T)+cap(it.cols.Hist) <= pooledColumnsMax {
			it.cols.Reset()
			q.pool.Put(it.cols)
		}
		it.cols = &model.Columns{}
		q.release(it.held)
		it.held = 0
	}
	q.mu.iterators = nil
}

func (q *querier) newIterator() *iterator {
	it := &iterator{q: q, cols: q.pool.Get().(*model.Columns)}
	q.mu.Lock()
	q.mu.iterators = append(q.mu.iterators, it)
	q.mu.Unlock()
	return it
}

// hold counts n decoded samples; release gives them back.
func (q *querier) hold(n int64) error {
	if held := q.samples.Add(n); q.limits.MaxSamples > 0 && held > q.limits.MaxSamples {
		return &model.LimitError{What: "samples", Limit: q.limits.MaxSamples, Flag: "query-max-samples"}
	}
	return nil
}

func (q *querier) release(n int64) { q.samples.Add(-n) }

// seriesSet is what a Select has found, or is to find.
type seriesSet struct {
	prior   *prior
	limit   int  // series; 0: none
	pending bool // nobody has asked for the series
	list    []model.Series
	next    int
	err     error
}

// found returns the series.
func (s *seriesSet) found() ([]model.Series, error) {
	if s.pending {
		s.prior.q.lookUp(s.prior.ctx)
		s.pending = false
	}
	return s.list, s.err
}

// Next implements storage.SeriesSet.
func (s *seriesSet) Next() bool {
	list, _ := s.found()
	s.next++
	return s.next <= len(list)
}

// At implements storage.SeriesSet.
func (s *seriesSet) At() storage.Series {
	return &series{Series: s.list[s.next-1], q: s.prior.q, prior: s.prior}
}

// Err implements storage.SeriesSet.
func (s *seriesSet) Err() error {
	_, err := s.found()
	return err
}

// Warnings implements storage.SeriesSet.
func (*seriesSet) Warnings() annotations.Annotations { return nil }

// ExemplarQuerier implements storage.ExemplarQueryable.
func (q *Queryable) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	return &exemplarQuerier{ctx: ctx, r: q.r}, nil
}

// exemplarQuerier carries its context, since upstream's Select takes none.
type exemplarQuerier struct {
	ctx context.Context
	r   model.Reader
}

// Select implements storage.ExemplarQuerier: the union over the matcher sets,
// sorted by labels, each series once.
func (q *exemplarQuerier) Select(start, end int64, sets ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	out := []exemplar.QueryResult{}
	for _, ms := range sets {
		list, err := q.r.Exemplars(q.ctx, &model.SelectRequest{MinT: start, MaxT: end, Matchers: ms})
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			res := exemplar.QueryResult{SeriesLabels: s.Labels, Exemplars: make([]exemplar.Exemplar, len(s.Exemplars))}
			for i, e := range s.Exemplars {
				res.Exemplars[i] = exemplar.Exemplar{Labels: exemplarLabels(e.Labels), Value: e.Value, Ts: e.T, HasTs: true}
			}
			out = append(out, res)
		}
	}
	slices.SortStableFunc(out, func(a, b exemplar.QueryResult) int { return labels.Compare(a.SeriesLabels, b.SeriesLabels) })
	return slices.CompactFunc(out, func(a, b exemplar.QueryResult) bool {
		return labels.Equal(a.SeriesLabels, b.SeriesLabels)
	}), nil
}

// exemplarLabels decodes an exemplar's labels, which a sender need not sort.
func exemplarLabels(key []byte) labels.Labels {
	b := labels.NewScratchBuilder(4)
	for rest := key; len(rest) > 0; {
		name, value, next, ok := model.NextKeyLabel(rest)
		if !ok {
			break
		}
		b.Add(string(name), string(value))
		rest = next
	}
	b.Sort()
	return b.Labels()
}
