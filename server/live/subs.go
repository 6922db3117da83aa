package live

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
)

// sub is a subscription of a connection.
type sub struct {
	id      []byte   // in JSON, in short if it fits
	short   [24]byte // beside what else a frame needs
	want    frame.Sub
	feed    *qlive.Subscription
	cursor  int64                    // what to resume after, by the writer alone, as the next
	seen    int64                    // as frame.Sub.Seen
	reached int64                    // up to where all was sent, or told to be missing
	labels  map[uint32]labels.Labels // of the older form: what the numbers stand for
	ended   bool                     // told
}

// same reports whether both ask for the same; where it goes on from matters only when
// it begins.
func same(a, b *frame.Sub) bool {
	return a.Query == b.Query && a.Step == b.Step && a.Mode == b.Mode
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
		begins := r.ID != "" && (r.Op == frame.OpSubscribe || r.Op == frame.OpResume)
		c.reply(frame.Error, errorFrame(r.Op, quoteID(r.ID), 0, err, begins && !c.holds(r.ID)))
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

// subscribe begins a subscription, or lets it wait for the write that it names. The
// answer is an ack or an error frame.
func (c *conn) subscribe(ctx context.Context, op string, want *frame.Sub) {
	applied, err := c.s.appliedOf(want)
	if err == nil {
		err = c.admits(want.ID)
	}
	switch {
	case err != nil:
		c.refuse(op, want.ID, err)
	case applied != nil:
		c.wait(op, want, applied)
	default:
		_ = c.begin(ctx, op, want) // the client is told
	}
}

// begin begins a subscription; the error is that of the answer.
func (c *conn) begin(ctx context.Context, op string, want *frame.Sub) error {
	s, err := c.feed(ctx, want)
	if err != nil {
		c.refuse(op, want.ID, err)
		return err
	}
	info := s.feed.Info()
	c.mu.Lock()
	c.enterLocked(op, s, &info)
	c.mu.Unlock()
	c.wake()
	return nil
}

// enterLocked makes the subscription one of the connection's.
func (c *conn) enterLocked(op string, s *sub, info *qlive.Info) {
	c.s.metrics.subscriptions.Inc()
	c.mu.subs = append(slices.Clip(c.mu.subs), s)
	c.replyLocked(reply{frame.Ack, ackFrame(op, s.id, info, s.cursor)})
}

// refuse answers why a subscription does not begin, or that there is none.
func (c *conn) refuse(op, id string, err error) {
	r := refusal(op, id, err)
	c.reply(r.kind, r.payload)
}

func refusal(op, id string, err error) reply {
	return reply{frame.Error, errorFrame(op, quoteID(id), 0, err, !errors.Is(err, errDuplicate))} // that of the same id goes on
}

// admits reports why there can be no subscription with this id, or nil.
func (c *conn) admits(id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holdsLocked(id) {
		return errDuplicate
	}
	if len(c.mu.subs)+len(c.mu.waiting) >= c.s.opts.MaxSubs {
		return tooManySubs(c.s.opts.MaxSubs)
	}
	return nil
}

// holds reports whether a subscription has the id, or waits for a write with it.
func (c *conn) holds(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holdsLocked(id)
}

func (c *conn) holdsLocked(id string) bool {
	return slices.ContainsFunc(c.mu.subs, func(s *sub) bool { return s.want.ID == id }) ||
		slices.ContainsFunc(c.mu.waiting, func(w *waiting) bool { return w.want.ID == id })
}

func (c *conn) feed(ctx context.Context, want *frame.Sub) (*sub, error) {
	feed, err := c.s.hub.Subscribe(ctx, qlive.Request{
		Query: want.Query, Step: time.Duration(want.Step), Samples: want.Mode == frame.ModeSamples,
		Backfill: time.Duration(want.Backfill), After: int64(want.Resume), Seen: int64(want.Seen), MaxSeries: c.s.opts.MaxSeries,
		Wake: c.wakeFn, Client: c.remote,
	})
	if err != nil {
		return nil, err
	}
	s := &sub{want: *want, feed: feed, cursor: feed.Since()}
	s.id = appendID(s.short[:0], want.ID)
	s.reached = s.cursor
	s.want.Applied = ""
	if c.simple {
		s.labels = map[uint32]labels.Labels{}
	}
	return s, nil
}

func (c *conn) unsubscribe(op, id string) {
	if c.withdraw(id) { // first: it may begin meanwhile
		c.reply(frame.Ack, ackFrame(op, quoteID(id), nil, 0))
		return
	}
	s := c.find(id)
	if s == nil {
		c.refuse(op, id, errUnknownID)
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
	waits, gone := c.withdrawUnless(byID)
	for _, id := range gone {
		if byID[id] == nil {
			c.reply(frame.Ack, ackFrame(frame.OpUnsubscribe, quoteID(id), nil, 0))
		}
	}
	kept := map[string]*sub{}
	for _, s := range c.list() {
		if w := byID[s.want.ID]; w != nil && same(&s.want, w) {
			kept[s.want.ID] = s
			continue
		}
		c.drop(s)
		if byID[s.want.ID] == nil {
			c.reply(frame.Ack, ackFrame(frame.OpUnsubscribe, s.id, nil, 0))
		}
	}
	for i := range wanted {
		if waits[wanted[i].ID] {
			continue // its answer comes when it begins
		}
		if s := kept[wanted[i].ID]; s != nil {
			info := s.feed.Info()
			c.reply(frame.Ack, ackFrame(frame.OpSet, s.id, &info, 0))
			continue
		}
		c.subscribe(ctx, frame.OpSet, &wanted[i])
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
