package live

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/shard/model"
)

// sub is a subscription of a connection.
type sub struct {
	id      []byte // in JSON
	want    frame.Sub
	feed    *qlive.Subscription
	cursor  int64                    // what to resume after, by the writer alone, as the next
	reached int64                    // up to where all was sent, or told to be missing
	labels  map[uint32]labels.Labels // of the older form: what the numbers stand for
	ended   bool                     // told
}

// rest is what of a subscription's events did not fit into the last write.
type rest struct {
	sub    *sub
	events []qlive.Event
}

// same reports whether a wanted subscription is this one; where it goes on from
// matters only when it begins.
func (s *sub) same(w *frame.Sub) bool {
	return s.want.Query == w.Query && s.want.Step == w.Step && s.want.Mode == w.Mode
}

func (s *sub) samples() bool { return s.want.Mode == frame.ModeSamples }

// missed notes a step that will not come.
func (s *sub) missed(t int64) {
	if !s.samples() {
		s.reached = max(s.reached, t)
	}
}

// request carries out what a client asks.
func (c *conn) request(ctx context.Context, r *frame.Request, err error) {
	if err != nil {
		c.reply(frame.Error, errorFrame(r.Op, quoteID(r.ID), 0, err, false))
		return
	}
	switch r.Op {
	case frame.OpSubscribe, frame.OpResume:
		c.subscribe(ctx, r.Op, &r.Sub)
	case frame.OpUnsubscribe:
		c.unsubscribe(r.Op, r.ID)
	case frame.OpSet:
		c.set(ctx, r.Subs)
	}
}

// subscribe begins a subscription; the answer is an ack or an error frame, and the
// error that of the latter.
func (c *conn) subscribe(ctx context.Context, op string, want *frame.Sub) error {
	s, err := c.begin(ctx, want)
	if err != nil {
		c.reply(frame.Error, errorFrame(op, quoteID(want.ID), 0, err, true))
		return err
	}
	info := s.feed.Info()
	ack := ackFrame(op, s.id, &info, s.cursor)
	c.s.metrics.subscriptions.Inc()
	c.mu.Lock()
	c.mu.subs = append(slices.Clip(c.mu.subs), s)
	c.mu.replies = append(c.mu.replies, reply{frame.Ack, ack})
	c.mu.Unlock()
	c.wake()
	return nil
}

func (c *conn) begin(ctx context.Context, want *frame.Sub) (*sub, error) {
	if c.find(want.ID) != nil {
		return nil, errDuplicate
	}
	if n := len(c.list()); n >= c.s.opts.MaxSubs {
		return nil, tooManySubs(c.s.opts.MaxSubs)
	}
	if err := c.s.sync(ctx, want.Applied); err != nil {
		return nil, err
	}
	feed, err := c.s.hub.Subscribe(ctx, qlive.Request{
		Query: want.Query, Step: time.Duration(want.Step), Samples: want.Mode == frame.ModeSamples,
		Backfill: time.Duration(want.Backfill), After: int64(want.Resume), MaxSeries: c.s.opts.MaxSeries,
		Wake: c.wakeFn, Client: c.remote,
	})
	if err != nil {
		return nil, err
	}
	s := &sub{id: quoteID(want.ID), want: *want, feed: feed, cursor: feed.Since()}
	s.reached = s.cursor
	s.want.Applied = ""
	if c.simple {
		s.labels = map[uint32]labels.Labels{}
	}
	return s, nil
}

func (c *conn) unsubscribe(op, id string) {
	s := c.find(id)
	if s == nil {
		c.reply(frame.Error, errorFrame(op, quoteID(id), 0, errUnknownID, true))
		return
	}
	c.drop(s)
	c.reply(frame.Ack, ackFrame(op, s.id, nil, 0))
}

// set makes the subscriptions those wanted: what is missing goes first.
func (c *conn) set(ctx context.Context, wanted []frame.Sub) {
	byID := make(map[string]*frame.Sub, len(wanted))
	for i := range wanted {
		byID[wanted[i].ID] = &wanted[i]
	}
	kept := map[string]*sub{}
	for _, s := range c.list() {
		if w := byID[s.want.ID]; w != nil && s.same(w) {
			kept[s.want.ID] = s
			continue
		}
		c.drop(s)
		if byID[s.want.ID] == nil {
			c.reply(frame.Ack, ackFrame(frame.OpUnsubscribe, s.id, nil, 0))
		}
	}
	for i := range wanted {
		if s := kept[wanted[i].ID]; s != nil {
			info := s.feed.Info()
			c.reply(frame.Ack, ackFrame(frame.OpSet, s.id, &info, 0))
			continue
		}
		_ = c.subscribe(ctx, frame.OpSet, &wanted[i]) // the client is told
	}
}

func (c *conn) list() []*sub {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.subs
}

func (c *conn) find(id string) *sub {
	for _, s := range c.list() {
		if s.want.ID == id {
			return s
		}
	}
	return nil
}

// drop takes a subscription out; the writer closes it. Dropping one twice does nothing.
func (c *conn) drop(s *sub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := make([]*sub, 0, len(c.mu.subs))
	for _, o := range c.mu.subs {
		if o != s {
			kept = append(kept, o)
		}
	}
	if len(kept) < len(c.mu.subs) {
		c.mu.subs = kept
		c.mu.gone = append(c.mu.gone, s)
	}
}

// sync waits until this node has applied what the token says.
func (s *Server) sync(ctx context.Context, token string) error {
	if token == "" {
		return nil
	}
	applied, err := model.ParseApplied(token)
	if err != nil {
		return fmt.Errorf("%w: %w; take it from the header X-Strandline-Applied of the answer to a write", errApplied, err)
	}
	if s.opts.Sync == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
	defer cancel()
	return s.opts.Sync(ctx, applied)
}
