package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// A node that is cut off can't know it from its groups alone: it waits for a leader as
// a sound node does while one is elected. So while it has groups without a leader, or
// something here has waited for longer than a commit takes, it asks the other nodes for
// a sign of life; what waits for a group of which no majority gives one is told so, long
// before its time is over, and goes to another node. What was sent to a node that has
// fallen silent is sent anew, by another node if that one is the leader still: one-way
// partitions leave some pairs of nodes without a connection while all others have theirs.

// errCutOff: this node reaches no majority of a group.
var errCutOff = fmt.Errorf("%w: no majority of the nodes that hold the data answers this node", model.ErrUnavailable)

// reach is what a node knows of who answers it.
type reach struct {
	wake chan struct{} // something begins to wait
	mu   struct {
		sync.Mutex
		waiting map[*waiter]struct{}
		since   time.Time            // since when the others are asked; zero: they are not
		heard   map[string]time.Time // when a node answered last
		asked   map[string]bool      // nodes that have a question to answer
	}
}

// waiter is something that waits for a majority of each of some groups.
type waiter struct {
	groups []uint64
	end    context.CancelCauseFunc
}

func newReach() *reach {
	r := &reach{wake: make(chan struct{}, 1)}
	r.mu.waiting, r.mu.heard, r.mu.asked = map[*waiter]struct{}{}, map[string]time.Time{}, map[string]bool{}
	return r
}

// patience is for how long nobody may answer.
func (n *Node) patience() time.Duration { return max(2*n.opts.Heartbeat, time.Second) }

// whileReached returns a context that ends, its cause being errCutOff, when this node
// is found to reach no majority of one of the groups, a little after the call at the
// earliest.
func (n *Node) whileReached(ctx context.Context, wait time.Duration, groups []uint64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	cctx, end := context.WithCancelCause(ctx)
	w, r := &waiter{groups, end}, n.reach
	late := time.AfterFunc(n.patience()/2, func() {
		r.mu.Lock()
		if cctx.Err() == nil {
			r.mu.waiting[w] = struct{}{}
		}
		r.mu.Unlock()
		select {
		case r.wake <- struct{}{}:
		default:
		}
	})
	return cctx, func() {
		end(nil)
		cancel()
		if !late.Stop() {
			r.mu.Lock()
			delete(r.mu.waiting, w)
			r.mu.Unlock()
		}
	}
}

// feel is the goroutine that asks for signs of life while there is a reason to.
func (n *Node) feel() {
	next := time.NewTimer(n.patience())
	defer next.Stop()
	for {
		select {
		case <-next.C:
		case <-n.reach.wake:
		case <-n.ctx.Done():
			return
		}
		wait := n.patience()
		if n.askAll(n.leaderless()) {
			wait /= 4
			for _, l := range n.peerLinks() {
				l.giveUpWrites(n.patience() / 2)
			}
		}
		next.Reset(wait)
		for w := range n.reach.waiters() {
			if slices.ContainsFunc(w.groups, n.cutOff) {
				w.end(errCutOff)
			}
		}
	}
}

// leaderless tells whether a group here has no leader that this node knows of.
func (n *Node) leaderless() bool {
	return slices.ContainsFunc(n.ordered(), func(g *group) bool { return g.leader() == "" })
}

// peerLinks returns the links on which requests go.
func (n *Node) peerLinks() []*link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Collect(maps.Values(n.mu.links))
}

func (r *reach) waiters() map[*waiter]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[*waiter]struct{}{}
	for w := range r.mu.waiting {
		out[w] = struct{}{}
	}
	return out
}

// askAll asks every node that has nothing to answer yet, if there is a reason to.
func (n *Node) askAll(reason bool) bool {
	r := n.reach
	r.mu.Lock()
	defer r.mu.Unlock()
	if !reason && len(r.mu.waiting) == 0 {
		r.mu.since = time.Time{}
		clear(r.mu.heard)
		return false
	}
	if r.mu.since.IsZero() {
		r.mu.since = time.Now()
	}
	for _, name := range n.currentMap().members(stateMember, stateDraining) {
		if name == n.name || r.mu.asked[name] {
			continue
		}
		r.mu.asked[name] = true
		n.wg.Go(func() { n.ask(name) })
	}
	return true
}

func (n *Node) ask(name string) {
	ctx, cancel := context.WithTimeout(n.ctx, n.patience())
	defer cancel()
	_, err := n.askTerms(ctx, name)
	r := n.reach
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.asked[name] = false
	if err == nil {
		r.mu.heard[name] = time.Now()
	}
}

// cutOff tells whether no majority of those that hold a group has answered for as long
// as this node has patience.
func (n *Node) cutOff(id uint64) bool {
	var holders []string
	if g := n.group(id); g != nil {
		for _, s := range g.voters() {
			holders = append(holders, string(s.Address))
		}
	} else {
		holders = n.holders(id)
	}
	missing := len(holders)/2 + 1
	for _, name := range holders {
		if name == n.name || !n.mute(name) {
			missing--
		}
	}
	return len(holders) > 0 && missing > 0
}

// mute tells whether another node has given no sign of life for as long as this one has
// patience, although it was asked for one. One that works on a request gives it.
func (n *Node) mute(name string) bool {
	r, patience := n.reach, n.patience()
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.mu.since.IsZero() && time.Since(r.mu.since) >= patience && time.Since(r.mu.heard[name]) >= patience
}
