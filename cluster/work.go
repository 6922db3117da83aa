package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxWorks = 256              // for other nodes at a time
	workWait = time.Second      // that an answer waits for a result
	workIdle = 20 * time.Second // after which a result that nobody fetches is dropped
)

// errNoWork: the result is not here, or no longer.
var errNoWork = fmt.Errorf("%w: the work is not known here", model.ErrUnavailable)

// errNoWorker: this node can't work on requests, or not yet.
var errNoWorker = fmt.Errorf("%w: this node takes no requests yet", model.ErrUnavailable)

// Work sets who works on what is asked of the shards here, by this node and by others.
func (n *Node) Work(f model.FragmentFunc) { n.worker.Store(&f) }

var _ model.Scatterer = (*clusterReader)(nil)

// Elsewhere implements model.Scatterer.
func (r *clusterReader) Elsewhere() bool {
	n := (*Node)(r)
	for s := range n.replicas.Len() {
		if !n.holdsShard(s) {
			return true
		}
	}
	return false
}

// Scatter implements model.Scatterer.
func (r *clusterReader) Scatter(ctx context.Context, request []byte) ([][]byte, error) {
	n := (*Node)(r)
	if len(request) > model.MaxFragmentRequest {
		return nil, fmt.Errorf("%w: the request has %d bytes", model.ErrLimit, len(request))
	}
	p, err := n.readingOf(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var near, far [][]byte
	err = p.strict().run(ctx, func(ctx context.Context, shards []int) error {
		near = nil // that of shards of which one has moved away
		if len(shards) == 0 {
			return nil
		}
		b, err := n.workHere(ctx, shards, request)
		if err == nil {
			near = [][]byte{b}
		}
		return err
	}, func(ctx context.Context, at synced, shards []int) error {
		b, err := n.workAt(ctx, at, shards, request)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		far = append(far, b)
		return nil
	})
	return append(near, far...), err
}

// strict returns the same read without its leave to be partial: what can't be worked on is
// read, and that tells shards that nobody holds from nodes that only don't work.
func (p *reading) strict() *reading {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := &reading{n: p.n, wanted: p.wanted, here: p.here, age: p.age}
	q.wanted.Partial = false
	q.mu.at, q.mu.bad, q.mu.lax = maps.Clone(p.mu.at), maps.Clone(p.mu.bad), p.mu.lax
	return q
}

// workHere has a request worked on over replicas here, which must still be ones when it
// is done.
func (n *Node) workHere(ctx context.Context, shards []int, request []byte) ([]byte, error) {
	f := n.worker.Load()
	if f == nil {
		return nil, errNoWorker
	}
	if !n.holdsAll(shards) {
		return nil, errNoReplica
	}
	b, err := (*f)(ctx, n.replicas.Reader(shards), request)
	if err != nil {
		return nil, err
	}
	if !n.holdsAll(shards) {
		return nil, errNoReplica
	}
	if len(b) > model.MaxFragmentAnswer {
		return nil, fmt.Errorf("%w: the answer has %d bytes", model.ErrLimit, len(b))
	}
	return b, nil
}

// workAt has a request worked on at another node. As long as that takes the node says
// from time to time that it is still at it.
func (n *Node) workAt(ctx context.Context, at synced, shards []int, request []byte) ([]byte, error) {
	l, id := n.bulk(at.name), rand.Uint64()|1
	left := time.Duration(0) // no end
	if t, ok := ctx.Deadline(); ok {
		left = max(1, time.Until(t))
	}
	b, err := l.call(ctx, kindWork, 0, putWork(&workRequest{id, at.life, left, shards, request}))
	return l.awaitWork(ctx, id, b, err)
}

// awaitWork waits for the result of work that has been begun, and been answered for so far.
func (l *link) awaitWork(ctx context.Context, id uint64, b []byte, err error) ([]byte, error) {
	for err == nil {
		d := &decoder{b: b}
		if d.bool() {
			return d.b, nil
		}
		if err = d.end(); err == nil {
			b, err = l.call(ctx, kindWorkPoll, 0, putUvarints(nil, id))
		}
	}
	l.start(kindWorkEnd, 0, putUvarints(nil, id), func([]byte, error) {})
	return nil, err
}

// workRequest asks for work on shards. left is the time it may take, 0: any.
type workRequest struct {
	id, life uint64
	left     time.Duration
	shards   []int
	request  []byte
}

func putWork(w *workRequest) []byte {
	b := putUvarints(nil, w.id, w.life, uint64(w.left))
	return putBytes(putShards(b, w.shards), w.request)
}

func (d *decoder) work() *workRequest {
	w := &workRequest{id: d.uvarint(), life: d.uvarint(), left: time.Duration(d.uvarint()), shards: d.shards(), request: d.bytes()}
	if w.id == 0 || w.left < 0 || len(w.request) > model.MaxFragmentRequest {
		d.bad = true
	}
	return w
}

// work is what another node has asked for.
type work struct {
	cancel context.CancelFunc
	idle   *time.Timer   // ends it
	done   chan struct{} // closed once there is a result
	result []byte
	err    error
}

// close ends the work and waits for it.
func (x *work) close() {
	x.idle.Stop()
	x.cancel()
	<-x.done
}

// answerWork begins to work for another node.
func (n *Node) answerWork(ctx context.Context, from *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	w := d.work()
	if err := d.end(); err != nil {
		return nil, err
	}
	if w.life != 0 && w.life != n.life {
		return nil, errNoReplica
	}
	return n.startWork(ctx, from, w.id, w.left, func(ctx context.Context) ([]byte, error) {
		b, err := n.workHere(ctx, w.shards, w.request)
		if err == nil {
			n.metrics.worked.Inc()
		}
		return b, err
	})
}

// startWork starts what is asked for under a number by a connection, and may take the time
// left, 0: any.
func (n *Node) startWork(ctx context.Context, from *wire, id uint64, left time.Duration, do func(context.Context) ([]byte, error)) ([]byte, error) {
	x := &work{done: make(chan struct{})}
	if left > 0 {
		ctx, x.cancel = context.WithTimeout(ctx, left)
	} else {
		ctx, x.cancel = context.WithCancel(ctx)
	}
	x.idle = time.AfterFunc(workIdle, func() { n.works.end(id, from) })
	if err := n.works.add(id, from, x); err != nil {
		x.idle.Stop()
		x.cancel()
		return nil, err
	}
	go func() {
		defer close(x.done)
		if x.result, x.err = do(ctx); x.err != nil && ctx.Err() != nil {
			x.err = fmt.Errorf("%w: %w", errNoWork, x.err)
		}
	}()
	if from.ended() {
		n.works.end(id, from)
		return nil, errNoWork
	}
	return n.resultOf(id, from, x)
}

// answerWorkPoll waits a little for a result.
func (n *Node) answerWorkPoll(from *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	id := d.uvarint()
	if err := d.end(); err != nil {
		return nil, err
	}
	x, ok := n.works.get(id, from)
	if !ok {
		return nil, errNoWork
	}
	return n.resultOf(id, from, x)
}

// resultOf answers with a result, which goes with it, or says that there is none yet.
func (n *Node) resultOf(id uint64, from *wire, x *work) ([]byte, error) {
	x.idle.Reset(workIdle)
	timer := time.NewTimer(workWait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return putBool(nil, false), nil
	case <-x.done:
	}
	n.works.end(id, from)
	if x.err != nil {
		return nil, x.err
	}
	return append(putBool(nil, true), x.result...), nil
}
