package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxServedFeeds = 8192        // of other nodes, open here
	maxFeedBuffer  = 1 << 16     // samples that wait for another node, a feed
	feedWait       = time.Second // a poll that has nothing to tell says so by then
	feedIdle       = 30 * time.Second
	feedDeaf       = 3 * time.Second // without a word of a shard's leader, after which a feed of it ends
)

// errFeed: a feed was closed, by its owner, with the connection, or because nobody polled.
var errFeed = fmt.Errorf("%w: the feed is closed", model.ErrUnavailable)

// servedFeed is one that another node has open here.
type servedFeed struct {
	shards []int
	feed   model.Feed
	kick   chan struct{} // capacity 1: there is something to tell
	idle   *time.Timer   // ends it when nobody polls
	busy   sync.Mutex    // one poll at a time
	batch  model.FeedBatch
	told   uint64 // the last nudge that was covered
	mu     struct {
		sync.Mutex
		nudge uint64
	}
}

func (x *servedFeed) wake() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

func (x *servedFeed) close() {
	x.idle.Stop()
	x.feed.Close()
}

// answerFeed opens a feed of shards that lie here. They are brought to what their leaders
// have first, so that whoever was told of a write finds it. If these can't be asked, the
// feed begins with what is here, unless it goes on where one from elsewhere has ended: it
// would bring again what that one has brought. A node that does not hear a leader serves no
// feed that another could.
func (n *Node) answerFeed(ctx context.Context, from *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	id, buffer := d.uvarint(), d.uvarint()
	shards, req := d.selectRequest()
	goesOn := len(d.b) > 0 && d.bool()
	if err := d.end(); err != nil {
		return nil, err
	}
	if !n.servesFeeds(shards) {
		return nil, errNoReplica
	}
	if err := n.reachLeaders(ctx, shards); err != nil {
		if goesOn {
			return nil, fmt.Errorf("%w: %w", model.ErrUnavailable, err)
		}
		n.opts.Logger.Debug("cluster: a feed begins with what is here", "err", err)
	}
	x := &servedFeed{shards: shards, kick: make(chan struct{}, 1)}
	var err error
	x.feed, err = n.replicas.Subscribe(ctx, shards, &model.FeedRequest{Matchers: req.Matchers, MaxSeries: req.MaxSeries,
		Buffer: int(min(buffer, maxFeedBuffer)), Wake: x.wake})
	if errors.Is(err, model.ErrLimit) {
		return putUvarints(putBool(nil, true), n.life), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFeed, err)
	}
	x.idle = time.AfterFunc(feedIdle, func() { n.served.end(id, from) })
	if err := n.served.add(id, from, x); err != nil {
		x.close()
		return nil, err
	}
	if from.ended() || !n.servesFeeds(shards) {
		n.served.end(id, from)
		return nil, errFeed
	}
	return putUvarints(putBool(nil, false), n.life), nil
}

// answerFeedPoll waits until a feed has something to tell, or is nudged, or for feedWait. While
// the leader of a shard is not heard there is nothing to tell, though there may be much that
// this node does not know of: the feed ends, so that the other node looks for who does, and
// knows what it lacks while nobody does.
func (n *Node) answerFeedPoll(ctx context.Context, from *wire, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	id := d.uvarint()
	if err := d.end(); err != nil {
		return nil, err
	}
	x, ok := n.served.get(id, from)
	if !ok {
		return nil, errFeed
	}
	if !x.busy.TryLock() {
		return nil, errMessage
	}
	defer x.busy.Unlock()
	x.idle.Reset(feedIdle)
	timer := time.NewTimer(feedWait)
	defer timer.Stop()
	for last := false; ; {
		nudge := x.nudged()
		err := x.feed.Poll(&x.batch)
		if errors.Is(err, model.ErrLimit) {
			return putBool(nil, true), nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errFeed, err)
		}
		switch {
		case !n.servesFeeds(x.shards):
			return nil, errNoReplica
		case n.deaf(x.shards):
			return nil, errUnheard
		}
		if last || nudge > x.told || !x.batch.Empty() || x.batch.Cut > noCut {
			x.told = nudge
			return putFeedBatch(putUvarints(putBool(nil, false), nudge), &x.batch, maxFeedBytes), nil
		}
		select {
		case <-x.kick:
		case <-timer.C:
			last = true
		case <-ctx.Done():
			return nil, errFeed
		}
	}
}

// deaf tells whether the leader of one of these shards has not been heard here for long. One that
// is heard and goes ahead of the replica is not meant: a feed elsewhere would be no faster.
func (n *Node) deaf(shards []int) bool {
	return slices.ContainsFunc(shards, func(s int) bool {
		g := n.group(uint64(s))
		return g == nil || !g.leads() && time.Since(g.raft.LastContact()) > feedDeaf
	})
}

func (x *servedFeed) nudged() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.mu.nudge
}

// answerFeedNudge makes a feed tell at once what it has by now.
func (n *Node) answerFeedNudge(from *wire, data []byte) error {
	d := &decoder{b: data}
	id, nudge := d.uvarint(), d.uvarint()
	if err := d.end(); err != nil {
		return err
	}
	x, ok := n.served.get(id, from)
	if !ok {
		return errFeed
	}
	x.mu.Lock()
	x.mu.nudge = max(x.mu.nudge, nudge)
	x.mu.Unlock()
	x.wake()
	return nil
}
