package live

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/query"
)

// stepped is the source that asks the query engine.
type stepped struct {
	e     *evaluation
	track tracker
}

func newStepped(e *evaluation) *stepped { return &stepped{e: e, track: tracker{e: e}} }

func (s *stepped) refresh(ctx context.Context, _ int64) (span, error) {
	if s.e.light() { // it has just taken over
		return none, errHeavy
	}
	return s.track.changed(ctx, s.e.next-s.e.key.step)
}

func (s *stepped) cold() bool { return true }

func (s *stepped) close() { s.track.close() }

func (s *stepped) steps(ctx context.Context, from, to int64) ([]*Step, error) {
	return s.e.query(ctx, from, to)
}

// query evaluates the steps from from to to by the query engine. With an error that is not
// passing come those before the one that it is of.
func (e *evaluation) query(ctx context.Context, from, to int64) ([]*Step, error) {
	if from == to || e.plan.byStep {
		return e.instants(ctx, from, to)
	}
	step := time.Duration(e.key.step) * time.Millisecond
	res, err := e.hub.engine.Range(ctx, e.plan.text, time.UnixMilli(from), time.UnixMilli(to), step, query.QueryOptions{Client: client})
	switch {
	case err != nil && passing(err):
		return nil, err
	case err != nil: // the range fails as a whole
		return e.instants(ctx, from, to)
	}
	defer res.Close()
	n := int((to-from)/e.key.step) + 1
	times, rows := make([]int64, n), make([][]row, n)
	for i := range times {
		times[i] = from + int64(i)*e.key.step
	}
	m, ok := res.Value.(promql.Matrix)
	if !ok {
		return nil, fmt.Errorf("a range query gave a %T", res.Value)
	}
	at := func(t int64) *[]row { return &rows[(t-from)/e.key.step] }
	for _, s := range m {
		for _, p := range s.Floats {
			r := at(p.T)
			*r = append(*r, row{labels: s.Metric, value: Value{V: p.F}})
		}
		for _, p := range s.Histograms {
			r := at(p.T)
			*r = append(*r, row{labels: s.Metric, value: Value{H: p.H.Copy()}})
		}
	}
	for _, r := range rows {
		if len(r) > e.hub.opts.MaxSeries {
			return e.instants(ctx, from, to)
		}
	}
	return e.number(times, rows), nil
}

// client is who asks in the list of active queries.
const client = "live"

// instants evaluates step by step.
func (e *evaluation) instants(ctx context.Context, from, to int64) ([]*Step, error) {
	var steps []*Step
	for t := from; t <= to; t += e.key.step {
		rows, err := e.instant(ctx, t)
		if err != nil {
			return steps, err
		}
		steps = append(steps, e.number([]int64{t}, [][]row{rows})...)
	}
	return steps, nil
}

func (e *evaluation) instant(ctx context.Context, t int64) ([]row, error) {
	res, err := e.hub.engine.Instant(ctx, e.plan.text, time.UnixMilli(t), query.QueryOptions{Client: client})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	switch v := res.Value.(type) {
	case promql.Scalar:
		return []row{{labels: labels.EmptyLabels(), value: Value{V: v.V}}}, nil
	case promql.Vector:
		if len(v) > e.hub.opts.MaxSeries {
			return nil, tooManySeries(e.hub.opts.MaxSeries)
		}
		rows := make([]row, len(v))
		for i, s := range v {
			rows[i] = row{labels: s.Metric, value: Value{V: s.F}}
			if s.H != nil {
				rows[i].value = Value{H: s.H.Copy()}
			}
		}
		return rows, nil
	}
	return nil, fmt.Errorf("an instant query gave a %T", res.Value)
}
