package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// Op is one operation for one shard, and, once committed, its result.
type Op struct {
	Shard  int
	Bytes  []byte // must stay unchanged until the commit is done
	Result Result
	Index  uint64 // of the log entry that it lies in
}

// Result says what became of an operation, Refusal and Loss of a series in it.
type (
	Result  = shard.Result
	Refusal = shard.Refusal
	Loss    = shard.Loss
)

// Committer makes changes durable, applies them in the order of the log, and
// returns once both are done. Safe for concurrent use.
//
// There are two: the local log here, and the Raft groups of a cluster.
type Committer interface {
	// Commit commits operations. An error (model.ErrOverloaded, ErrUnavailable,
	// ErrFailed, ErrClosed) or the end of ctx leaves the outcome unknown, and the
	// operations' bytes must not be touched again.
	Commit(ctx context.Context, ops []Op) error
	// Describe stores metadata of metrics.
	Describe(ctx context.Context, mds []model.Metadata) error
	// ChangeRecords changes records, which this node then shows. An error is
	// model.ErrConflict or one of Commit's.
	ChangeRecords(ctx context.Context, c *model.RecordChange) error
	// Flush brings what a shard holds in memory into blocks and lets go of the log
	// that they make superfluous.
	Flush(ctx context.Context, shard int) error
	// Leads tells whether this node is the one that proposes a shard's upkeep.
	Leads(shard int) bool
	// Time returns the time by which upkeep is proposed, where it is now by this node's
	// clock: what upkeep removes is gone on all nodes.
	Time(ctx context.Context, now time.Time) time.Time
	// Close answers what waits, then stops. Idempotent.
	Close() error
}

// request is one caller's operations, waiting.
type request struct {
	ops  []Op
	done chan error // capacity 1
}

// group is what goes to the log in one write: of each shard one entry that joins
// the operations of all waiting requests.
type group struct {
	requests []*request
	entries  []wal.Entry
}

const (
	maxWaiting   = 256     // requests in the queue
	maxGroup     = 4 << 20 // bytes of operations joined into one group
	groupsBehind = 2       // groups durable and not yet applied
)

// localLog commits to the log of this node. Two goroutines form a pipeline: one
// writes group n+1 to the log while the other applies group n.
type localLog struct {
	log    *wal.Log
	shards []*shard.Shard
	meta   *metaStore
	next   []uint64 // next log index, by shard; the writer's own
	onFail func(error)
	// applying is held for reading while a group is applied, so that a reader that holds it
	// sees each request as a whole or not at all.
	applying *sync.RWMutex

	queue   chan *request
	durable chan *group
	free    chan *group
	once    sync.Once
	wg      sync.WaitGroup
	mu      struct {
		sync.RWMutex // held for reading while a request is put into the queue
		closed       bool
	}
}

func newLocalLog(db *DB) *localLog {
	l := &localLog{log: db.log, shards: db.shards, meta: db.meta, applying: &db.applying, onFail: func(err error) { _ = db.fail(err) },
		queue: make(chan *request, maxWaiting), durable: make(chan *group, groupsBehind),
		free: make(chan *group, groupsBehind+2)}
	for i := range l.shards {
		l.next = append(l.next, l.log.Last(wal.StreamID(i))+1)
	}
	for range cap(l.free) {
		l.free <- &group{}
	}
	l.wg.Add(2)
	go l.write()
	go l.apply()
	return l
}

// Describe implements Committer.
func (l *localLog) Describe(_ context.Context, mds []model.Metadata) error {
	if err := l.meta.put(mds); err != nil {
		err = fmt.Errorf("%w: metadata: %w", model.ErrFailed, err)
		l.onFail(err)
		return err
	}
	return nil
}

// Flush implements Committer.
func (l *localLog) Flush(ctx context.Context, i int) error {
	applied, err := l.shards[i].Flush(ctx)
	if err != nil {
		return err
	}
	return l.log.TruncateFront(wal.StreamID(i), applied)
}

// Leads implements Committer.
func (l *localLog) Leads(int) bool { return true }

// Time implements Committer.
func (l *localLog) Time(_ context.Context, now time.Time) time.Time { return now }

// Commit implements Committer.
func (l *localLog) Commit(ctx context.Context, ops []Op) error {
	r := &request{ops: ops, done: make(chan error, 1)}
	if err := l.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: the write was not confirmed in time", model.ErrOverloaded)
	}
}

func (l *localLog) enqueue(ctx context.Context, r *request) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.mu.closed {
		return model.ErrClosed
	}
	select {
	case l.queue <- r:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: the write queue is full", model.ErrOverloaded)
	}
}

// write is the goroutine that owns the log's tail.
func (l *localLog) write() {
	defer l.wg.Done()
	defer close(l.durable)
	var failed error
	for first := range l.queue {
		if failed != nil {
			first.done <- failed
			continue
		}
		g := <-l.free
		l.gather(g, first)
		if err := l.log.Append(g.entries); err != nil {
			failed = fmt.Errorf("%w: %w", model.ErrFailed, err)
			for _, r := range g.requests {
				r.done <- failed
			}
			l.onFail(failed)
			continue
		}
		l.durable <- g
	}
}

// gather joins first and whatever waits behind it into g.
func (l *localLog) gather(g *group, first *request) {
	g.requests = append(g.requests[:0], first)
	size := first.size()
	for size < maxGroup {
		select {
		case r, ok := <-l.queue:
			if !ok {
				l.encode(g)
				return
			}
			g.requests = append(g.requests, r)
			size += r.size()
			continue
		default:
		}
		break
	}
	l.encode(g)
}

func (r *request) size() int {
	n := 0
	for i := range r.ops {
		n += len(r.ops[i].Bytes)
	}
	return n
}

// encode makes the group's log entries, one a shard. Their buffers are reused.
func (l *localLog) encode(g *group) {
	g.entries = g.entries[:0]
	for i := range l.shards {
		var e *wal.Entry
		for _, r := range g.requests {
			for k := range r.ops {
				if r.ops[k].Shard != i {
					continue
				}
				if e == nil {
					e = g.grow()
					e.Stream, e.Index, e.Term = wal.StreamID(i), l.next[i], 1
					e.Data = shard.PayloadHeader(e.Data[:0])
					l.next[i]++
				}
				e.Data = append(e.Data, r.ops[k].Bytes...)
			}
		}
	}
}

// grow extends the entries by one, whose data buffer is that of an earlier group.
func (g *group) grow() *wal.Entry {
	if len(g.entries) < cap(g.entries) {
		g.entries = g.entries[:len(g.entries)+1]
	} else {
		g.entries = append(g.entries, wal.Entry{})
	}
	return &g.entries[len(g.entries)-1]
}

// apply is the goroutine that brings durable groups into the shards and answers.
func (l *localLog) apply() {
	defer l.wg.Done()
	for g := range l.durable {
		err := l.applyGroup(g)
		if err != nil {
			err = fmt.Errorf("%w: %w", model.ErrFailed, err)
			l.onFail(err)
		}
		for _, r := range g.requests {
			r.done <- err
		}
		clear(g.requests)
		l.free <- g
	}
}

func (l *localLog) applyGroup(g *group) error {
	l.applying.RLock()
	defer l.applying.RUnlock()
	for _, e := range g.entries {
		results, err := l.shards[e.Stream].Apply(e.Index, e.Data)
		if err != nil {
			return err
		}
		n := 0
		for _, r := range g.requests {
			for k := range r.ops {
				if r.ops[k].Shard == int(e.Stream) {
					if n >= len(results) {
						return errors.New("apply gave fewer results than there were operations")
					}
					r.ops[k].Result, r.ops[k].Index = results[n], e.Index
					n++
				}
			}
		}
	}
	return nil
}

// Close implements Committer.
func (l *localLog) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		l.mu.closed = true
		close(l.queue)
		l.mu.Unlock()
	})
	l.wg.Wait()
	return nil
}
