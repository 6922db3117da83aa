package query

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/strandline-db/strandline/shard/model"
)

// ActiveQuery is a query that runs or waits for its turn.
type ActiveQuery struct {
	ID      uint64
	Expr    string
	Client  string
	Since   time.Time
	Running bool // false: waits
}

// active bounds, lists and times the queries of an engine.
type active struct {
	opts  *Options
	slots chan struct{}
	mu    struct {
		sync.Mutex
		last    uint64
		queries map[uint64]*entry
	}
}

type entry struct {
	ActiveQuery
	cancel context.CancelCauseFunc
}

func newActive(opts *Options) *active {
	a := &active{opts: opts, slots: make(chan struct{}, opts.MaxConcurrent)}
	a.mu.queries = map[uint64]*entry{}
	return a
}

// enter waits for a turn. The returned context ends when the query is killed;
// done must be called once with the query's error.
func (a *active) enter(ctx context.Context, expr, client string) (context.Context, func(error), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	e := &entry{cancel: cancel}
	e.Expr, e.Client, e.Since = expr, client, a.opts.Clock.Now()
	if err := a.add(e); err != nil {
		cancel(err)
		return nil, nil, err
	}
	select {
	case a.slots <- struct{}{}:
	case <-ctx.Done():
		a.remove(e)
		err := queueError(ctx)
		cancel(err)
		return nil, nil, err
	}
	a.mu.Lock()
	e.Running = true
	a.mu.Unlock()
	return ctx, func(err error) {
		<-a.slots
		a.remove(e)
		cancel(nil)
		a.log(e, err)
	}, nil
}

// queueError words the end of a wait as Prometheus does.
func queueError(ctx context.Context) error {
	if ctx.Err() == context.DeadlineExceeded {
		return promql.ErrQueryTimeout("query queue")
	}
	return failure(ctx, promql.ErrQueryCanceled("query queue"))
}

func (a *active) add(e *entry) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	max := a.opts.MaxConcurrent + a.opts.MaxQueued
	if a.opts.MaxQueued < 0 {
		max = a.opts.MaxConcurrent
	}
	if len(a.mu.queries) >= max {
		limit := &model.LimitError{What: "concurrent queries", Limit: int64(a.opts.MaxConcurrent), Flag: "query-max-concurrent",
			Whose: "server", Remedy: "ask again later"}
		return fmt.Errorf("%w: %w", model.ErrOverloaded, limit)
	}
	a.mu.last++
	e.ID = a.mu.last
	a.mu.queries[e.ID] = e
	return nil
}

func (a *active) remove(e *entry) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.mu.queries, e.ID)
}

func (a *active) log(e *entry, err error) {
	took := a.opts.Clock.Now().Sub(e.Since)
	if a.opts.SlowQuery < 0 || took < a.opts.SlowQuery {
		return
	}
	attrs := []slog.Attr{slog.String("query", e.Expr), slog.String("client", e.Client), slog.Duration("took", took)}
	if err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	a.opts.Logger.LogAttrs(context.Background(), slog.LevelWarn, "slow query", attrs...)
}

// Active lists the queries that run or wait, oldest first.
func (e *Engine) Active() []ActiveQuery {
	a := e.active
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]ActiveQuery, 0, len(a.mu.queries))
	for _, q := range a.mu.queries {
		out = append(out, q.ActiveQuery)
	}
	slices.SortFunc(out, func(x, y ActiveQuery) int { return int(x.ID) - int(y.ID) })
	return out
}

// Kill ends the query with that ID as if its client had left; false: there is none.
func (e *Engine) Kill(id uint64) bool {
	e.active.mu.Lock()
	q := e.active.mu.queries[id]
	e.active.mu.Unlock()
	if q != nil {
		q.cancel(ErrKilled)
	}
	return q != nil
}
