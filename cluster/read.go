package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard/model"
)

// Level says what a read must see.
type Level int

// Levels of consistency.
const (
	// Stale reads what this node has.
	Stale Level = iota
	// Leader sees what the leaders have committed, as far as they know to be leaders.
	Leader
	// Linearizable sees every write that was acknowledged before the read began.
	Linearizable
)

// ParseLevel reads the name of a level.
func ParseLevel(s string) (Level, error) {
	switch s {
	case "stale":
		return Stale, nil
	case "leader":
		return Leader, nil
	case "linearizable":
		return Linearizable, nil
	}
	return 0, fmt.Errorf("%q is not stale, leader or linearizable", s)
}

// Wanted is what a read asks for.
type Wanted struct {
	Level Level
	// MaxStaleness bounds how old a Stale read may be; what is older is read as at
	// level Leader. 0: any age.
	MaxStaleness time.Duration
	// Applied are entries that must have been applied here.
	Applied model.Applied
}

// Sync returns once a read at this node gives what is wanted, and how old at most
// its data is. It fails with model.ErrUnavailable when a group has no leader or no
// majority within ctx and the commit timeout.
func (n *Node) Sync(ctx context.Context, w Wanted) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	for _, a := range w.Applied {
		if g := n.group(uint64(a.Shard)); g != nil {
			if err := g.fsm.wait(ctx, a.Index, 0); err != nil {
				return 0, err
			}
		}
	}
	if w.Level == Stale {
		age := n.Staleness()
		if w.MaxStaleness == 0 || age <= w.MaxStaleness {
			return age, nil
		}
		w.Level = Leader
	}
	eg, ctx := errgroup.WithContext(ctx)
	for _, g := range n.ordered() {
		eg.Go(func() error { return n.syncGroup(ctx, g, w.Level) })
	}
	return 0, eg.Wait()
}

func (n *Node) syncGroup(ctx context.Context, g *group, level Level) error {
	for {
		index, err := n.askReadIndex(ctx, g, level)
		if err == nil {
			return g.fsm.wait(ctx, index, 0)
		}
		if n.pause(ctx) != nil {
			return fmt.Errorf("%w: group %d: %w", model.ErrUnavailable, g.id, err)
		}
	}
}

func (n *Node) askReadIndex(ctx context.Context, g *group, level Level) (uint64, error) {
	if g.leads() {
		return g.readIndex(ctx, level)
	}
	addr, _ := g.raft.LeaderWithID()
	if addr == "" {
		return 0, errNotLeader
	}
	b, err := n.link(string(addr)).call(ctx, kindReadIndex, g.id, putUvarints(nil, uint64(level)), false)
	if err != nil {
		return 0, err
	}
	d := &decoder{b: b}
	index := d.uvarint()
	return index, d.end()
}

// readIndex returns an index such that a replica which has come to it shows what the
// level asks for. Only the leader can tell.
func (g *group) readIndex(ctx context.Context, level Level) (uint64, error) {
	if !g.leads() {
		return 0, errNotLeader
	}
	term := g.raft.CurrentTerm()
	if err := g.fsm.wait(ctx, 0, term); err != nil { // an entry of this term is committed
		return 0, err
	}
	index := g.raft.CommitIndex()
	if level == Linearizable {
		return index, g.confirmTerm(ctx, term)
	}
	return index, nil
}

// confirmTerm returns nil once a majority has said, after the call began, that it
// knows no later term: then no other leader had been elected when it began.
func (g *group) confirmTerm(ctx context.Context, term uint64) error {
	f := g.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return raftError(err)
	}
	voters, agree, asked := 0, 0, 0
	answers := make(chan bool, len(f.Configuration().Servers))
	for _, s := range f.Configuration().Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if s.ID == g.node.raftID {
			if g.raft.CurrentTerm() == term {
				agree++
			}
			continue
		}
		asked++
		go func() {
			t, err := g.node.askTerms(ctx, string(s.Address), g.id)
			answers <- err == nil && t.term == term
		}()
	}
	for ; asked > 0 && agree <= voters/2; asked-- {
		if <-answers {
			agree++
		}
	}
	if agree <= voters/2 {
		return fmt.Errorf("%w: no majority of group %d confirms the leader", model.ErrUnavailable, g.id)
	}
	return nil
}

// terms is what a member says of itself in one group.
type terms struct {
	term     uint64
	consumed uint64 // entries that its state machine has seen
	draining bool   // it wants no leadership
}

func (g *group) terms() []byte {
	b := putUvarints(nil, g.raft.CurrentTerm(), g.fsm.consumed())
	return putBool(b, g.node.draining.Load())
}

func (n *Node) askTerms(ctx context.Context, addr string, group uint64) (t terms, err error) {
	b, err := n.link(addr).call(ctx, kindTerms, group, nil, false)
	if err != nil {
		return t, err
	}
	d := &decoder{b: b}
	t = terms{d.uvarint(), d.uvarint(), d.bool()}
	return t, d.end()
}

// freshness tracks how old a follower's state may be: the time at which it got the
// last append whose commit index it has come to since.
type freshness struct {
	mu struct {
		sync.Mutex
		at      time.Time // then everything committed was here
		nextAt  time.Time // an append came, and
		nextIdx uint64    // this far the leader had committed
	}
}

func (f *freshness) heard(at time.Time, committed, consumed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advanceLocked(consumed)
	if f.mu.nextAt.IsZero() {
		f.mu.nextAt, f.mu.nextIdx = at, committed
	}
	f.advanceLocked(consumed)
}

func (f *freshness) advanceLocked(consumed uint64) {
	if !f.mu.nextAt.IsZero() && consumed >= f.mu.nextIdx {
		f.mu.at, f.mu.nextAt = f.mu.nextAt, time.Time{}
	}
}

func (f *freshness) age(now time.Time, consumed uint64) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advanceLocked(consumed)
	return now.Sub(f.mu.at)
}

// staleness returns how old this replica's state may be: a leader may have been
// overruled for as long as its lease.
func (g *group) staleness(now time.Time) time.Duration {
	if g.leads() {
		return g.node.opts.Heartbeat
	}
	return g.trans.fresh.age(now, g.fsm.consumed())
}

// Staleness returns how old the data of this node may be; very much before it has
// heard of a leader.
func (n *Node) Staleness() time.Duration {
	now, most := time.Now(), time.Duration(0)
	for _, g := range n.ordered() {
		most = max(most, g.staleness(now))
	}
	return most
}
