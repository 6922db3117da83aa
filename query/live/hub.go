package live

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// Hub evaluates live queries, one evaluation for each distinct query and step. Safe
// for concurrent use.
type Hub struct {
	opts   *Options
	feeder model.Feeder
	reader model.Reader
	engine *query.Engine
	sched  *scheduler
	ctx    context.Context // ends with Close
	stop   context.CancelFunc
	mu     struct {
		sync.Mutex
		evals  map[evalKey]*evaluation
		closed bool
	}
}

// evalKey tells evaluations apart.
type evalKey struct {
	query   string // normalised
	step    int64  // milliseconds
	samples bool
}

// New returns a hub. f and r are of one storage, and q queries it. The options are
// completed in place.
func New(f model.Feeder, r model.Reader, q *query.Engine, o *Options) (*Hub, error) {
	if f == nil || r == nil || q == nil {
		return nil, ErrNil
	}
	o = o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	h := &Hub{opts: o, feeder: f, reader: r, engine: q}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.mu.evals = map[evalKey]*evaluation{}
	h.sched = newScheduler(h.ctx, o.Clock, [classes]int{light: o.Workers, heavy: o.QueryWorkers})
	return h, nil
}

// Close ends all subscriptions with ErrClosed and joins every goroutine. Idempotent.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.mu.closed = true
	evals := h.mu.evals
	h.mu.evals = map[evalKey]*evaluation{}
	h.mu.Unlock()
	h.stop()
	h.sched.wait()
	for _, e := range evals {
		e.end(ErrClosed)
	}
	return nil
}

// Subscribe starts a subscription, which the caller closes. ctx bounds the call, not
// the subscription. A request that can't be served for ever is a *query.Error of kind
// BadData; a limit wraps *model.LimitError and, where others may make room,
// model.ErrOverloaded.
func (h *Hub) Subscribe(ctx context.Context, req Request) (*Subscription, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if req.Step == 0 {
		req.Step = h.opts.Step
	}
	if err := h.check(&req); err != nil {
		return nil, err
	}
	p, err := h.plan(&req)
	if err != nil {
		return nil, err
	}
	key := evalKey{query: p.text, samples: req.Samples, step: req.Step.Milliseconds()}
	if req.Samples {
		key.step = 0
	}
	s, err := h.attach(key, p, &req)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.e.ready:
		err = s.e.failure()
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-h.ctx.Done():
		err = ErrClosed
	}
	if err != nil {
		s.Close()
		return nil, kindOf(err)
	}
	if req.Samples && req.After == 0 && req.Backfill == 0 {
		s.since = h.opts.Clock.Now().UnixMilli() // from when on the feed was there for certain
	}
	return s, nil
}

// attach adds a subscription to its evaluation, which it makes if there is none.
func (h *Hub) attach(key evalKey, p *plan, req *Request) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closed {
		return nil, ErrClosed
	}
	e := h.mu.evals[key]
	if e == nil {
		if len(h.mu.evals) >= h.opts.MaxQueries {
			return nil, full("live queries", h.opts.MaxQueries, "live-max-queries")
		}
		e = newEvaluation(h, key, p)
		h.mu.evals[key] = e
	}
	return e.subscribe(req)
}

func (h *Hub) check(req *Request) error {
	switch {
	case req.Samples:
	case req.Step < h.opts.MinStep:
		return badData("step %s is too short: the least is %s", req.Step, h.opts.MinStep)
	case req.Step%time.Millisecond != 0:
		return badData("step %s must be in whole milliseconds", req.Step)
	}
	switch {
	case req.Backfill < 0:
		return badData("backfill must not be negative")
	case req.MaxSeries < 0:
		return badData("the limit of series must not be negative")
	case req.After < 0 || req.After > maxTime:
		return badData("the time to resume after is out of range")
	}
	return nil
}

// maxTime bounds times, so that arithmetic on them can't overflow: the year 9999.
const maxTime = 253_402_300_799_999

// Stats are figures of a hub.
type Stats struct {
	Queries     int // distinct evaluations
	Incremental int // of them
	Subscribers int
}

// Stats returns the figures of this moment.
func (h *Hub) Stats() (s Stats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.mu.evals {
		s.Queries++
		s.Subscribers += e.subscribers()
		if e.mode() == ModeIncremental {
			s.Incremental++
		}
	}
	return s
}

// retire forgets an evaluation that nobody has used for a while; false: someone does.
func (h *Hub) retire(e *evaluation) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.evals[e.key] != e || e.subscribers() > 0 {
		return false
	}
	delete(h.mu.evals, e.key)
	return true
}

// kindOf types an error as package query does.
func kindOf(err error) error {
	var typed *query.Error
	if err == nil || errors.As(err, &typed) {
		return err
	}
	return &query.Error{Kind: query.KindOf(err), Err: err}
}
