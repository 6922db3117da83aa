package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/strandline-db/strandline/shard/model"
)

// remotePart is the part of a feed that comes from another node.
type remotePart struct {
	feed    *joinedFeed
	node    string
	life    uint64 // of the node
	shards  []int
	link    *link
	id      uint64
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
	ids     map[uint32]uint32 // the node's numbers of series, and the reader's; guarded by the feed, as is
	applied model.Applied
	mu      struct {
		sync.Mutex
		nudge uint64        // the last that was sent
		seen  uint64        // the last that an answer covers
		next  chan struct{} // closed with the next answer
	}
}

// open begins the feed of shards at a node, the first of these or one that goes on.
func (j *joinedFeed) open(ctx context.Context, name string, shards []int, first bool) error {
	x := &remotePart{feed: j, node: name, shards: shards, link: j.n.bulk(name), id: rand.Uint64() | 1, done: make(chan struct{}), ids: map[uint32]uint32{}}
	x.mu.next = make(chan struct{})
	req := putUvarints(nil, x.id, uint64(j.req.Buffer))
	req = putSelect(req, shards, &model.SelectRequest{Matchers: j.req.Matchers, MaxSeries: j.req.MaxSeries})
	if !first {
		req = putBool(req, true)
	}
	cctx, cancel := context.WithTimeout(ctx, j.n.opts.CommitTimeout)
	defer cancel()
	b, err := x.link.call(cctx, kindFeed, 0, req)
	if err != nil {
		x.leave()
		return err
	}
	d := &decoder{b: b}
	over := d.bool()
	x.life = d.uvarint()
	if err := d.end(); err != nil {
		return err
	}
	if over {
		return x.limit()
	}
	x.ctx, x.cancel = context.WithCancel(j.ctx)
	j.mu.Lock()
	j.mu.parts = append(j.mu.parts[:len(j.mu.parts):len(j.mu.parts)], x)
	j.mu.Unlock()
	j.wg.Go(x.run)
	return nil
}

func (x *remotePart) limit() error {
	return &model.LimitError{What: "series", Limit: int64(x.feed.req.MaxSeries), Flag: "live-max-series"}
}

// run is the goroutine that fetches what the part brings.
func (x *remotePart) run() {
	defer x.leave()
	err := x.fetch()
	x.feed.n.opts.Logger.Debug("cluster: a part of a feed has ended", "from", x.node, "shards", x.shards, "err", err)
	x.cancel()
	close(x.done)
	if errors.Is(err, model.ErrLimit) {
		x.feed.fail(err)
	}
	select {
	case x.feed.failed <- struct{}{}:
	default:
	}
}

func (x *remotePart) fetch() error {
	var batch model.FeedBatch
	for {
		b, err := x.link.call(x.ctx, kindFeedPoll, 0, putUvarints(nil, x.id))
		if err != nil {
			return err
		}
		d := &decoder{b: b}
		if d.bool() {
			return x.limit()
		}
		nudge := d.uvarint()
		batch = model.FeedBatch{Series: batch.Series[:0], Samples: batch.Samples[:0]}
		d.feedBatch(&batch)
		if err := d.end(); err != nil {
			return err
		}
		if err := x.feed.take(x, &batch); err != nil {
			return err
		}
		x.mu.Lock()
		x.mu.seen = max(x.mu.seen, nudge)
		close(x.mu.next)
		x.mu.next = make(chan struct{})
		x.mu.Unlock()
	}
}

// leave tells the node that nobody listens any more.
func (x *remotePart) leave() {
	x.link.start(kindFeedClose, 0, putUvarints(nil, x.id), func([]byte, error) {})
}

// ended tells whether the part brings nothing more.
func (x *remotePart) ended() bool { return x.ctx.Err() != nil }

// flush returns once what the node had for this feed when it was called has come, or the
// part has ended.
func (x *remotePart) flush(ctx context.Context) error {
	x.mu.Lock()
	x.mu.nudge++
	nudge := x.mu.nudge
	x.mu.Unlock()
	x.link.start(kindFeedNudge, 0, putUvarints(nil, x.id, nudge), func([]byte, error) {})
	for {
		x.mu.Lock()
		seen, next := x.mu.seen, x.mu.next
		x.mu.Unlock()
		if seen >= nudge {
			return nil
		}
		select {
		case <-next:
		case <-x.done:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
