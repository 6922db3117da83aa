package query

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql"
)

// SetBatchPoints makes fragments evaluate few series at a time.
func (e *Engine) SetBatchPoints(n int) { e.batchPoints = n }

// Scattered returns how many aggregations of a query are done in parts, and the query, as
// Prometheus' engine makes it. step 0: an instant.
func (e *Engine) Scattered(ctx context.Context, o promql.QueryOpts, expr string, start, end time.Time, step time.Duration) (promql.Query, func() int, error) {
	s := &scattered{Queryable: e.q, e: e}
	parts := func() int { return len(s.parts) }
	if step == 0 {
		q, err := e.ng.NewInstantQuery(ctx, s, o, expr, start)
		if err != nil {
			return nil, parts, err
		}
		return s.query(q, expr, nil), parts, nil
	}
	q, err := e.ng.NewRangeQuery(ctx, s, o, expr, start, end, step)
	if err != nil {
		return nil, parts, err
	}
	return s.query(q, expr, nil), parts, nil
}
