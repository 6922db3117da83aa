package live

import (
	"context"
	"fmt"
	"slices"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/shard/model"
)

// maxWaiting bounds the subscriptions of all connections that wait for a write.
const maxWaiting = 1024

// waiting is a subscription that begins once this node has applied a write. Meanwhile it
// holds its id, and counts as one of the connection's.
type waiting struct {
	op     string
	want   frame.Sub
	cancel context.CancelFunc
}

// appliedOf reads the token of the write to wait for; nil: none.
func (s *Server) appliedOf(want *frame.Sub) (model.Applied, error) {
	if want.Applied == "" {
		return nil, nil
	}
	applied, err := model.ParseApplied(want.Applied)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; take it from the header X-Strandline-Applied of the answer to a write", errApplied, err)
	}
	if s.opts.Sync == nil {
		return nil, nil
	}
	return applied, nil
}

// sync waits until this node has applied the write.
func (s *Server) sync(ctx context.Context, applied model.Applied) error {
	if applied == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.SyncTimeout)
	defer cancel()
	return s.opts.Sync(ctx, applied)
}

// wait begins a subscription once the write is applied, on a goroutine of its own: the
// connection's other messages don't wait with it. It is the reader's.
func (c *conn) wait(op string, want *frame.Sub, applied model.Applied) {
	select {
	case c.s.waits <- struct{}{}:
	default:
		c.refuse(op, want.ID, errWaits)
		return
	}
	ctx, cancel := context.WithCancel(c.s.ctx)
	w := &waiting{op: op, want: *want, cancel: cancel}
	c.mu.Lock()
	c.mu.waiting = append(c.mu.waiting, w)
	c.mu.Unlock()
	c.s.readers.Go(func() {
		defer func() { cancel(); <-c.s.waits }()
		var s *sub
		err := c.s.sync(ctx, applied)
		if err == nil {
			c.s.working <- struct{}{}
			s, err = c.feed(ctx, &w.want)
			<-c.s.working
		}
		c.arrive(w, s, err)
	})
}

// arrive ends a wait, with a subscription or an error.
func (c *conn) arrive(w *waiting, s *sub, err error) {
	var info qlive.Info
	if s != nil {
		info = s.feed.Info()
	}
	c.mu.Lock()
	at := slices.Index(c.mu.waiting, w)
	if at >= 0 {
		c.mu.waiting = slices.Delete(c.mu.waiting, at, at+1)
		if err == nil {
			c.enterLocked(w.op, s, &info)
		} else {
			c.replyLocked(refusal(w.op, w.want.ID, err))
		}
	}
	c.mu.Unlock()
	if at < 0 && s != nil { // nobody waits for it any more
		s.feed.Close()
	}
	c.wake()
}

// endWaits is the reader's, at its end: what then arrives is closed.
func (c *conn) endWaits() {
	c.mu.Lock()
	list := c.mu.waiting
	c.mu.waiting = nil
	c.mu.Unlock()
	for _, w := range list {
		w.cancel()
	}
}

// withdraw ends a wait before its time, and tells so; false: nothing waits by this id.
func (c *conn) withdraw(id string) bool {
	c.mu.Lock()
	at := slices.IndexFunc(c.mu.waiting, func(w *waiting) bool { return w.want.ID == id })
	if at < 0 {
		c.mu.Unlock()
		return false
	}
	w := c.mu.waiting[at]
	c.mu.waiting = slices.Delete(c.mu.waiting, at, at+1)
	c.replyLocked(refusal(w.op, id, errWithdrawn))
	c.mu.Unlock()
	w.cancel()
	c.wake()
	return true
}

// withdrawUnless ends the waits for what a set does not want, and returns the ids of those
// that go on, which are the set's from now on.
func (c *conn) withdrawUnless(wanted map[string]*frame.Sub) (kept map[string]bool, gone []string) {
	kept = map[string]bool{}
	c.mu.Lock()
	for _, w := range c.mu.waiting {
		if x := wanted[w.want.ID]; x != nil && same(&w.want, x) {
			w.op = frame.OpSet
			kept[w.want.ID] = true
		} else {
			gone = append(gone, w.want.ID)
		}
	}
	c.mu.Unlock()
	// One that has begun meanwhile is to be dropped.
	return kept, slices.DeleteFunc(gone, func(id string) bool { return !c.withdraw(id) })
}
