package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// entryOverhead is what an entry takes beside key and answer, roughly.
const entryOverhead = 200

// Compute makes an answer. It must not use what belongs to a request: it runs in
// another goroutine and may outlive it.
type Compute func(ctx context.Context) ([]byte, error)

// Cache keeps answers for a moment.
type Cache struct {
	o       *Options
	metrics *metrics
	base    context.Context
	stop    context.CancelCauseFunc
	slots   chan struct{} // computations that run
	wg      sync.WaitGroup
	mu      struct {
		sync.Mutex
		closed  bool
		entries map[string]*entry
		order   []*entry // by age, from head on
		head    int
		bytes   int64
		flights map[string]*flight
	}
}

type entry struct {
	key     string
	body    []byte
	expires time.Time
	dropped bool // left in the order only
}

func (e *entry) size() int64 { return int64(len(e.key) + len(e.body) + entryOverhead) }

// flight is one computation and those who wait for it.
type flight struct {
	key     string
	waiters int // under Cache.mu
	cancel  context.CancelCauseFunc
	done    chan struct{}
	body    []byte // these two once done is closed
	err     error
}

// New returns an empty cache. The options are completed in place.
func New(o *Options) (*Cache, error) {
	o = o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Cache{o: o, slots: make(chan struct{}, o.MaxRunning)}
	c.base, c.stop = context.WithCancelCause(context.Background())
	c.mu.entries, c.mu.flights = map[string]*entry{}, map[string]*flight{}
	var err error
	c.metrics, err = newMetrics(c)
	return c, err
}

// Hit returns the answer that is kept for key, if there is one.
func (c *Cache) Hit(key []byte) ([]byte, bool) {
	now := c.o.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.mu.entries[string(key)]
	if e == nil || !now.Before(e.expires) {
		return nil, false
	}
	c.metrics.hits.Add(1)
	return e.body, true
}

// Get returns the answer for key: the one that is kept, or that of a computation
// which runs or is begun. It returns early, with the cause, when ctx ends; the
// computation ends too once nobody waits for it.
func (c *Cache) Get(ctx context.Context, key []byte, compute Compute) ([]byte, error) {
	if b, ok := c.Hit(key); ok {
		return b, nil
	}
	f, err := c.join(key, compute)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.body, f.err
	case <-ctx.Done():
		c.leave(f)
		return nil, context.Cause(ctx)
	}
}

// Bypass computes an answer that is neither shared nor kept, within the bounds of
// the others.
func (c *Cache) Bypass(ctx context.Context, compute Compute) ([]byte, error) {
	c.metrics.bypassed.Add(1)
	return c.run(ctx, compute)
}

func (c *Cache) join(key []byte, compute Compute) (*flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return nil, model.ErrClosed
	}
	if f := c.mu.flights[string(key)]; f != nil {
		f.waiters++
		c.metrics.shared.Add(1)
		return f, nil
	}
	if len(c.mu.flights) >= c.o.MaxFlights {
		return nil, fmt.Errorf("%w: %d answers are being computed", model.ErrOverloaded, c.o.MaxFlights)
	}
	c.metrics.misses.Add(1)
	f := &flight{key: string(key), waiters: 1, done: make(chan struct{})}
	c.mu.flights[f.key] = f
	ctx, cancel := context.WithCancelCause(c.base)
	f.cancel = cancel
	c.wg.Add(1)
	go func() {
		defer c.wg.Done()
		f.body, f.err = c.run(ctx, compute)
		c.land(f)
		cancel(nil)
		close(f.done)
	}()
	return f, nil
}

// leave takes a waiter off; the last one ends the computation, which nobody joins
// any more.
func (c *Cache) leave(f *flight) {
	c.mu.Lock()
	f.waiters--
	last := f.waiters == 0
	if last && c.mu.flights[f.key] == f {
		delete(c.mu.flights, f.key)
	}
	c.mu.Unlock()
	if last {
		f.cancel(context.Canceled)
	}
}

// run computes when there is room. An end by Close is named as such.
func (c *Cache) run(ctx context.Context, compute Compute) (body []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			body, err = nil, &query.Error{Kind: query.Internal, Err: fmt.Errorf("%w: %v", ErrPanicked, p)}
		}
		if err != nil && c.base.Err() != nil {
			body, err = nil, context.Cause(c.base)
		}
	}()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.base.Done():
		return nil, context.Cause(c.base)
	}
	return compute(ctx)
}

// land ends a flight and keeps its answer.
func (c *Cache) land(f *flight) {
	now := c.o.Clock.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.flights[f.key] == f {
		delete(c.mu.flights, f.key)
	}
	e := &entry{key: f.key, body: f.body, expires: now.Add(c.o.Life)}
	if f.err != nil || c.o.Life < 0 || e.size() > c.o.MaxBytes {
		return
	}
	if old := c.mu.entries[e.key]; old != nil {
		c.mu.bytes -= old.size()
		old.dropped, old.body = true, nil
	}
	c.mu.entries[e.key] = e
	c.mu.order = append(c.mu.order, e)
	c.mu.bytes += e.size()
	c.evictLocked(now)
}

// evictLocked drops what has expired, and the oldest while the cache is too full.
func (c *Cache) evictLocked(now time.Time) {
	for c.mu.head < len(c.mu.order) {
		e := c.mu.order[c.mu.head]
		live := !e.dropped
		if live && now.Before(e.expires) && c.mu.bytes <= c.o.MaxBytes && len(c.mu.entries) <= c.o.MaxEntries {
			break
		}
		if live {
			delete(c.mu.entries, e.key)
			c.mu.bytes -= e.size()
			if now.Before(e.expires) {
				c.metrics.evicted.Inc()
			}
		}
		c.mu.head++
	}
	if c.mu.head > len(c.mu.order)/2 {
		c.mu.order = slices.Delete(c.mu.order, 0, c.mu.head)
		c.mu.head = 0
	}
}

// usage returns the entries and bytes that are kept.
func (c *Cache) usage() (entries int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.mu.entries), c.mu.bytes
}

// Close ends the computations that run, with model.ErrClosed, refuses new ones and
// waits for them. It may be called more than once.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	c.stop(model.ErrClosed)
	c.wg.Wait()
	return nil
}
