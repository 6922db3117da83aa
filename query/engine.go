package query

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
	"github.com/strandline-db/strandline/shard/model"
)

// Engine evaluates PromQL. It is safe for concurrent use.
type Engine struct {
	opts   *Options
	q      *Queryable
	parser parser.Parser
	ng     *promql.Engine
	active *active

	scatterer   model.Scatterer // nil: all data is here
	pairs       *PairReader     // what joins pairs of senders; nil: nothing does
	fragments   *active
	batchPoints int // see evaluate
}

// QueryOptions are the wishes of one request. Zero values mean the engine's settings.
type QueryOptions struct {
	Timeout  time.Duration // shortens the engine's timeout, never extends it
	Lookback time.Duration
	// Limit cuts a vector or matrix to its first series; 0: no limit.
	Limit int
	// Stats asks for figures per step, if the engine has PerStepStats.
	Stats bool
	// StartTimestamps overrides Options.StartTimestamps when set.
	StartTimestamps *bool
	// Client says who asks, for the list of active queries and the log.
	Client string
}

// Result is the answer to a query. Its memory is reused after Close.
type Result struct {
	*promql.Result
	// Truncated says that QueryOptions.Limit cut the answer.
	Truncated bool
	Stats     *stats.Statistics

	query promql.Query
}

// Close gives the result's memory back; the value must not be read after.
func (r *Result) Close() { r.query.Close() }

// New returns an engine over r. The options are completed in place.
func New(r model.Reader, opts *Options) (*Engine, error) {
	if r == nil {
		return nil, ErrNoReader
	}
	opts = opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	p := parser.NewParser(parser.Options{
		EnableExperimentalFunctions: opts.ExperimentalFunctions,
		EnableBinopFillModifiers:    opts.BinopFillModifiers,
		EnableUnquotedUTF8Names:     opts.UnquotedUTF8Names,
	})
	step := opts.SubqueryStep.Milliseconds()
	scatterer, pairs := scattererOf(r)
	return &Engine{
		opts:        opts,
		q:           NewQueryable(r, &Limits{MaxSeries: opts.MaxSeries, MaxSamples: int64(opts.MaxSamples)}),
		parser:      p,
		active:      newActive(opts),
		scatterer:   scatterer,
		pairs:       pairs,
		fragments:   newActive(opts),
		batchPoints: batchPoints,
		ng: promql.NewEngine(promql.EngineOpts{
			Logger:                   opts.Logger,
			MaxSamples:               opts.MaxSamples,
			Timeout:                  opts.Timeout,
			LookbackDelta:            opts.LookbackDelta,
			NoStepSubqueryIntervalFn: func(int64) int64 { return step },
			EnableAtModifier:         true,
			EnableNegativeOffset:     true,
			EnablePerStepStats:       opts.PerStepStats,
			EnableDelayedNameRemoval: opts.DelayedNameRemoval,
			UseStartTimestamps:       opts.StartTimestamps,
			Parser:                   p,
		}),
	}, nil
}

// scattererOf returns what can be asked beside being read, and the PairReader before it.
func scattererOf(r model.Reader) (model.Scatterer, *PairReader) {
	pairs, _ := r.(*PairReader)
	if pairs != nil {
		r = pairs.Reader
	}
	s, _ := r.(model.Scatterer)
	return s, pairs
}

// joined reads the pairs of senders by a label as one.
func (e *Engine) joined(r model.Reader, label string) *PairReader {
	if e.pairs != nil && e.pairs.label == label {
		return e.pairs.over(r)
	}
	return NewPairReader(r, label)
}

// replicaLabel is that of the pairs that the engine's reader joins; "": it does not.
func (e *Engine) replicaLabel() string {
	if e.pairs == nil {
		return ""
	}
	return e.pairs.label
}

// Parser returns the engine's parser.
func (e *Engine) Parser() parser.Parser { return e.parser }

// Options returns the options in force.
func (e *Engine) Options() Options { return *e.opts }

// Queryable returns the storage as the engine sees it, limits included.
func (e *Engine) Queryable() *Queryable { return e.q }

// Upstream returns Prometheus' engine inside, for callers that speak its
// interface. Queries made through it are neither queued nor listed.
func (e *Engine) Upstream() promql.QueryEngine { return e.ng }

// Instant evaluates expr at t. A failure is an *Error.
func (e *Engine) Instant(ctx context.Context, expr string, t time.Time, o QueryOptions) (*Result, error) {
	return e.run(ctx, expr, o, func(ctx context.Context, q storage.Queryable, po promql.QueryOpts) (promql.Query, error) {
		return e.ng.NewInstantQuery(ctx, q, po, expr, t)
	})
}

// Range evaluates expr from start to end, both inclusive, every step, which must
// be positive. A failure is an *Error.
func (e *Engine) Range(ctx context.Context, expr string, start, end time.Time, step time.Duration, o QueryOptions) (*Result, error) {
	if step <= 0 {
		return nil, &Error{Kind: BadData, Err: fmt.Errorf("step must be positive, got %s", step)}
	}
	return e.run(ctx, expr, o, func(ctx context.Context, q storage.Queryable, po promql.QueryOpts) (promql.Query, error) {
		return e.ng.NewRangeQuery(ctx, q, po, expr, start, end, step)
	})
}

type builder func(context.Context, storage.Queryable, promql.QueryOpts) (promql.Query, error)

func (e *Engine) run(ctx context.Context, expr string, o QueryOptions, build builder) (*Result, error) {
	timeout := e.opts.Timeout
	if o.Timeout > 0 && o.Timeout < timeout {
		timeout = o.Timeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q, parts := storage.Queryable(e.q), e.scatterable(&o)
	if parts != nil {
		q = parts
	}
	// A query that can't be built never takes a turn in the queue.
	qry, err := build(ctx, q, promql.NewPrometheusQueryOpts(o.Stats, o.Lookback, o.StartTimestamps))
	if err != nil {
		kind := KindOf(err)
		if kind == Execution {
			kind = BadData
		}
		return nil, &Error{Kind: kind, Err: err}
	}
	if parts != nil {
		qry = parts.query(qry, expr, o.StartTimestamps)
	}
	ctx, done, err := e.active.enter(ctx, expr, o.Client)
	if err != nil {
		qry.Close()
		return nil, &Error{Kind: KindOf(err), Err: err}
	}
	res := qry.Exec(ctx)
	done(res.Err)
	if res.Err != nil {
		qry.Close()
		return nil, failure(ctx, res.Err)
	}
	r := &Result{Result: res, Stats: qry.Stats(), query: qry}
	r.truncate(o.Limit)
	return r, nil
}

// failure names the cause of an ended context where the engine only knows that
// it ended.
func failure(ctx context.Context, err error) error {
	kind := KindOf(err)
	cause := context.Cause(ctx)
	if kind == Canceled && cause != nil && cause != context.Canceled {
		return &Error{Kind: causeKind(cause), Err: fmt.Errorf("%w: %w", err, cause)}
	}
	return &Error{Kind: kind, Err: err}
}

func causeKind(cause error) Kind {
	if k := KindOf(cause); k == Unavailable {
		return k
	}
	return Canceled
}

func (r *Result) truncate(limit int) {
	if limit <= 0 {
		return
	}
	switch v := r.Value.(type) {
	case promql.Matrix:
		if r.Truncated = len(v) > limit; r.Truncated {
			r.Value = v[:limit]
		}
	case promql.Vector:
		if r.Truncated = len(v) > limit; r.Truncated {
			r.Value = v[:limit]
		}
	}
}

// Notes returns the result's warnings and infos as text, at most max of each.
func Notes(expr string, a annotations.Annotations, max int) (warnings, infos []string) {
	return a.AsStrings(expr, max, max)
}
