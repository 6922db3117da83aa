package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// shardOp is one operation for one shard, and, once committed, its result.
type shardOp struct {
	shard  int
	bytes  []byte // must stay unchanged until the commit is done
	result shard.Result
}

// Committer makes operations durable, applies them in the order of the log, and
// returns once both are done. Safe for concurrent use. When ctx ends first, the
// outcome is unknown and the operations' bytes must not be touched again.
//
// There are two: the local log here, and the Raft groups of a cluster.
type Committer interface {
	Commit(ctx context.Context, ops []shardOp) error
	Close() error
}

// request is one caller's operations, waiting.
type request struct {
	ops  []shardOp
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
	next   []uint64 // next log index, by shard; the writer's own
	onFail func(error)

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

func newLocalLog(log *wal.Log, shards []*shard.Shard, onFail func(error)) *localLog {
	l := &localLog{log: log, shards: shards, onFail: onFail,
		queue: make(chan *request, maxWaiting), durable: make(chan *group, groupsBehind),
		free: make(chan *group, groupsBehind+2)}
	for i := range shards {
		l.next = append(l.next, log.Last(wal.StreamID(i))+1)
	}
	for range cap(l.free) {
		l.free <- &group{}
	}
	l.wg.Add(2)
	go l.write()
	go l.apply()
	return l
}

// Commit implements Committer.
func (l *localLog) Commit(ctx context.Context, ops []shardOp) error {
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
		n += len(r.ops[i].bytes)
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
				if r.ops[k].shard != i {
					continue
				}
				if e == nil {
					e = g.grow()
					e.Stream, e.Index, e.Term = wal.StreamID(i), l.next[i], 1
					e.Data = shard.PayloadHeader(e.Data[:0])
					l.next[i]++
				}
				e.Data = append(e.Data, r.ops[k].bytes...)
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
	for _, e := range g.entries {
		results, err := l.shards[e.Stream].Apply(e.Index, e.Data)
		if err != nil {
			return err
		}
		n := 0
		for _, r := range g.requests {
			for k := range r.ops {
				if r.ops[k].shard == int(e.Stream) {
					if n >= len(results) {
						return errors.New("apply gave fewer results than there were operations")
					}
					r.ops[k].result = results[n]
					n++
				}
			}
		}
	}
	return nil
}

// Close answers what waits, then stops. Idempotent.
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
