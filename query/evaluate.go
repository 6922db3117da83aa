package query

import (
	"context"
	"errors"
	"fmt"
	"strings"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/strandline-db/strandline/query/partial"
	"github.com/strandline-db/strandline/shard/model"
)

// batchPoints is about how many points of single series an evaluation of a fragment
// holds at a time; the groups that they are folded into come on top.
const batchPoints = 1 << 19

// errUnfit wraps why an aggregation can't be done in parts.
var errUnfit = errors.New("not in parts")

var _ model.FragmentFunc = (*Engine)(nil).Fragment

// Fragment implements model.FragmentFunc: it works out an aggregation over the series of
// r, for this engine or that of another node. Fragments have turns of their own, as many
// as queries have, so that nodes whose queries wait for each other's fragments get on.
func (e *Engine) Fragment(ctx context.Context, r model.Reader, request []byte) ([]byte, error) {
	req, err := partial.ParseRequest(request)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.Timeout)
	defer cancel()
	ctx, done, err := e.fragments.enter(ctx, strings.TrimSpace(req.Text), "fragment")
	if err != nil {
		return nil, err
	}
	a, err := e.evaluate(ctx, r, req)
	done(err)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	default: // the samples, or the same error, will come when they are asked for
		a = &partial.Answer{Unfit: err.Error()}
	}
	b := a.Append(nil, req.Op)
	if len(b) > model.MaxFragmentAnswer {
		return (&partial.Answer{Unfit: "the answer is too large"}).Append(nil, req.Op), nil
	}
	return b, nil
}

// evaluate works out a request in batches of series. An error that wraps errUnfit, or any
// other, says why it can't.
func (e *Engine) evaluate(ctx context.Context, r model.Reader, req *partial.Request) (*partial.Answer, error) {
	alone := req.ReplicaLabel
	if p, ok := r.(model.Placed); ok && alone != "" && p.PairLabel() == alone {
		r, alone = e.joined(r, alone), "" // all senders of a series are in r
	}
	q := &querier{Queryable: NewQueryable(r, &Limits{MaxSeries: req.MaxSeries, MaxSamples: int64(e.opts.MaxSamples)})}
	defer q.Close()
	fold := partial.NewFold(req, e.opts.MaxSamples)
	src := &batches{ctx: ctx, q: q, req: req, alone: alone, fold: fold, size: max(1, min(1024, e.batchPoints/e.pointsOf(req)))}
	out := &partial.Answer{}
	var notes annotations.Annotations
	for first := true; first || src.next < len(src.list); first = false {
		qry, err := e.build(ctx, src, req)
		if err != nil {
			return nil, err
		}
		res := qry.Exec(ctx)
		if res.Err == nil {
			res.Err = foldResult(fold, req, res.Value)
		}
		if s := qry.Stats().Samples; s != nil {
			out.Cost.Add(partial.Cost{Series: s.TotalSeries, Samples: s.TotalSamples, SamplesRead: s.SamplesRead, Peak: int64(s.PeakSamples)})
		}
		notes.Merge(res.Warnings)
		qry.Close()
		if res.Err != nil {
			return nil, res.Err
		}
	}
	var err error
	out.Groups = fold.Groups()
	out.Notes, err = notesOf(notes, req.Text)
	return out, err
}

// stepsOf is how many points a series may have.
func stepsOf(req *partial.Request) int {
	whole := *req
	whole.Once = false
	return whole.Steps()
}

// pointsOf is about how many points a series takes while it is worked out: those of
// subqueries come on top.
func (e *Engine) pointsOf(req *partial.Request) int {
	n := stepsOf(req)
	expr, err := e.parser.ParseExpr(req.Text)
	if err != nil {
		return n // building the query will say so
	}
	parser.Inspect(expr, func(x parser.Node, _ []parser.Node) error {
		if q, ok := x.(*parser.SubqueryExpr); ok && q.Step > 0 {
			n += int((req.End.Sub(req.Start) + q.Range) / q.Step)
		}
		return nil
	})
	return max(n, 1)
}

func (e *Engine) build(ctx context.Context, q storage.Queryable, req *partial.Request) (promql.Query, error) {
	o := promql.NewPrometheusQueryOpts(false, req.Lookback, &req.StartTimestamps)
	if req.Step == 0 {
		return e.ng.NewInstantQuery(ctx, q, o, req.Text, req.Start)
	}
	return e.ng.NewRangeQuery(ctx, q, o, req.Text, req.Start, req.End, req.Step)
}

// foldResult adds the result of a batch.
func foldResult(f *partial.Fold, req *partial.Request, v any) error {
	b := labels.NewBuilder(labels.EmptyLabels())
	stored := func(ls labels.Labels) labels.Labels {
		if req.Metric == "" {
			return ls
		}
		b.Reset(ls)
		return b.Set(commonmodel.MetricNameLabel, req.Metric).Labels()
	}
	switch v := v.(type) {
	case promql.Vector:
		for _, s := range v {
			p := f.Series(s.Metric, stored(s.Metric))
			switch {
			case p == nil:
			case s.H != nil:
				f.Histogram(p, 0)
			default:
				f.Float(p, 0, s.F)
			}
		}
	case promql.Matrix:
		start, step, steps := req.Start.UnixMilli(), req.Step.Milliseconds(), req.Steps()
		for _, s := range v {
			p := f.Series(s.Metric, stored(s.Metric))
			if p == nil {
				break
			}
			for _, x := range s.Floats {
				if i := int((x.T - start) / step); i < steps {
					f.Float(p, i, x.F)
				}
			}
			for _, x := range s.Histograms {
				if i := int((x.T - start) / step); i < steps {
					f.Histogram(p, i)
				}
			}
		}
	default:
		return fmt.Errorf("%w: the result is a %T", errUnfit, v)
	}
	if why := f.Unfit(); why != "" {
		return fmt.Errorf("%w: %s", errUnfit, why)
	}
	return nil
}

// batches hands the series of a fragment's selector to the engine, some for each query.
type batches struct {
	ctx context.Context // of the fragment: what is selected outlives a query
	q   *querier
	req *partial.Request
	// alone is the label of pairs of senders whose series may lie apart; "": none do.
	alone string
	fold  *partial.Fold
	size  int

	list  []model.Series // of the first Select
	prior *prior
	next  int
}

// Querier implements storage.Queryable.
func (b *batches) Querier(int64, int64) (storage.Querier, error) { return &batch{b.q, b}, nil }

type batch struct {
	*querier
	of *batches
}

// Select implements storage.Querier. Every query of a fragment has the same one.
func (b *batch) Select(_ context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	x := b.of
	if x.prior == nil {
		set := b.querier.Select(x.ctx, sorted, hints, ms...)
		all := set.(*seriesSet) // querier makes no others
		list, err := all.found()
		if err == nil {
			err = x.check(list)
		}
		if err != nil {
			return storage.ErrSeriesSet(err)
		}
		x.list, x.prior = list, all.prior
	}
	from := x.next
	x.next = min(from+x.size, len(x.list))
	return &seriesSet{list: x.list[from:x.next], prior: x.prior}
}

// Close implements storage.LabelQuerier: what is selected stays for the next batch.
func (b *batch) Close() error {
	b.recycle()
	return nil
}

// check refuses series that are not what they seem without those of other nodes, and too
// many groups of them.
func (b *batches) check(list []model.Series) error {
	all := make([]labels.Labels, len(list))
	for i, s := range list {
		ls := s.Labels()
		all[i] = ls
		if b.alone != "" && ls.Has(b.alone) {
			return fmt.Errorf("%w: a pair of senders may have series at several nodes", errUnfit)
		}
		if b.req.Metric != "" && (ls.Has("__type__") || ls.Has("__unit__")) {
			return fmt.Errorf("%w: series may differ in labels that are dropped", errUnfit)
		}
	}
	if !b.fold.Fits(all) {
		return fmt.Errorf("%w: too many groups", errUnfit)
	}
	return nil
}

// notesOf renders annotations as the text that a query's answer shows.
func notesOf(a annotations.Annotations, query string) ([]partial.Note, error) {
	if len(a) > partial.MaxNotes {
		return nil, fmt.Errorf("%w: %d notes", errUnfit, len(a))
	}
	var out []partial.Note
	for raw, err := range a {
		n := partial.Note{Info: errors.Is(err, annotations.PromQLInfo), Raw: raw}
		warnings, infos := annotations.Annotations{raw: err}.AsStrings(query, 0, 0)
		for _, full := range append(warnings, infos...) {
			n.Full = full
		}
		out = append(out, n)
	}
	return out, nil
}

// farNote is an annotation that was made at another node.
type farNote struct {
	partial.Note
	kind error
	full bool
}

func newFarNote(n partial.Note) *farNote {
	if n.Info {
		return &farNote{Note: n, kind: annotations.PromQLInfo}
	}
	return &farNote{Note: n, kind: annotations.PromQLWarning}
}

func (n *farNote) Error() string {
	if n.full {
		return n.Full
	}
	return n.Raw
}

// Unwrap tells a warning from an info.
func (n *farNote) Unwrap() error { return n.kind }

// SetQuery is called before the text is shown.
func (n *farNote) SetQuery(query string) { n.full = query != "" }

// Merge is called when there is such a note already.
func (n *farNote) Merge(error) error { return n }
