package rules

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/shard/model"
)

// Appender stores batches. It is called concurrently; the batch is the caller's
// again when Append returns.
type Appender interface {
	Append(context.Context, *model.Batch) (model.AppendResult, error)
}

var staleNaN = math.Float64frombits(value.StaleNaN)

// addFloat appends a series of one float sample to the batch.
func addFloat(b *model.Batch, ls labels.Labels, t int64, v float64) {
	n := len(b.T)
	b.T, b.V = append(b.T, t), append(b.V, v)
	b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, ls), From: n, To: n + 1})
}

// addSample appends a series of one sample, which the batch may keep.
func addSample(b *model.Batch, s promql.Sample) {
	if s.H == nil {
		addFloat(b, s.Metric, s.T, s.F)
		return
	}
	n := len(b.Hist)
	b.Hist = append(b.Hist, model.HistogramSample{T: s.T, FH: s.H})
	b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, s.Metric), HFrom: n, HTo: n + 1})
}

// store writes a rule's result, and stale markers at t for the series that the rule
// wrote before and does not now. written are the series of the whole iteration: what
// another rule wrote at t is not marked. It returns how far a reader must have come to see it all.
func (r *rule) store(ctx context.Context, to Appender, v promql.Vector, t int64, written map[string]struct{}) (model.Applied, error) {
	b := &model.Batch{}
	now := make(map[string]labels.Labels, len(v))
	for _, s := range v {
		key := labelKey(s.Metric)
		now[key] = s.Metric
		written[key] = struct{}{}
		addSample(b, s)
	}
	for key, ls := range r.wrote {
		if _, alive := written[key]; !alive {
			addFloat(b, ls, t, staleNaN)
		}
	}
	if len(b.Series) == 0 {
		return nil, nil
	}
	res, err := to.Append(ctx, b)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, x := range res.Rejected {
		if x.Series >= len(v) {
			continue // a marker
		}
		delete(now, labelKey(v[x.Series].Metric))
		if len(errs) < 3 {
			errs = append(errs, fmt.Errorf("%w: %s: %w", ErrRejected, v[x.Series].Metric, x.Err))
		}
	}
	r.wrote = now
	return res.Applied, errors.Join(errs...)
}

// mark writes stale markers at t.
func mark(ctx context.Context, to Appender, series []labels.Labels, t int64) error {
	if len(series) == 0 {
		return nil
	}
	b := &model.Batch{}
	for _, ls := range series {
		addFloat(b, ls, t, staleNaN)
	}
	_, err := to.Append(ctx, b)
	return err
}
