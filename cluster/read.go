package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	// Applied are entries that must have been applied.
	Applied model.Applied
	// Partial lets a read leave out shards that nobody can be asked for; see Warnings. A node
	// that is lost while series are read that were selected there fails the read all the same.
	Partial bool
	// Held wants it of all replicas here that feeds come from, for those who read feeds.
	// Otherwise a shard whose leader can't be heard here may be read at another node.
	Held bool
	// Metadata wants it of the metadata alone, which lies on every node: nothing is read of
	// shards.
	Metadata bool
}

// ErrForeign: entries are wanted of a shard that this cluster does not have.
var ErrForeign = errors.New("the token is not of this cluster: take it from the answer of one of its nodes to a write")

// Sync returns once a read with the context that it returns gives what is wanted, and how
// old at most its data is; negative if Partial has it take what there is of unknown age. If a node
// that was chosen is lost after that, a read at level Stale without MaxStaleness goes on at
// another, whose data may be older: Age tells. Sync fails with model.ErrUnavailable when a group has no leader
// or no majority within ctx and the commit timeout, and Partial does not allow for it, and with
// ErrForeign when Applied names a shard that there is not.
func (n *Node) Sync(ctx context.Context, w Wanted) (context.Context, time.Duration, error) {
	if slices.ContainsFunc(w.Applied, func(a model.ShardIndex) bool { return a.Shard >= n.replicas.Len() }) {
		return ctx, 0, ErrForeign
	}
	p := &reading{n: n, wanted: w, age: &atomic.Int64{}}
	groups := []uint64{uint64(metaStream)}
	if !w.Metadata {
		groups = nil
		for s := range n.replicas.Len() {
			groups = append(groups, uint64(s))
		}
	}
	sctx, cancel := n.whileReached(ctx, n.opts.CommitTimeout, groups)
	defer cancel()
	age, err := p.sync(sctx)
	p.age.Store(int64(age))
	return context.WithValue(ctx, readingKey{}, p), age, err
}

// syncGroups is Sync for some of the groups that have a replica here.
func (n *Node) syncGroups(ctx context.Context, w *Wanted, groups []*group) (time.Duration, error) {
	for _, a := range w.Applied {
		for _, g := range groups {
			if g.id != uint64(a.Shard) {
				continue
			}
			if err := g.wait(ctx, a.Index); err != nil {
				return 0, err
			}
		}
	}
	level := w.Level
	if level == Stale {
		age := stalest(groups)
		if w.MaxStaleness == 0 || age <= w.MaxStaleness {
			return age, nil
		}
		level = Linearizable // one that leads, for all it knows, may be older than the bound
	}
	return 0, n.catchUp(ctx, level, groups)
}

// wait returns once the replica has come to an entry, or with errNoReplica if it leaves.
func (g *group) wait(ctx context.Context, index uint64) error {
	if g.fsm.consumed() >= index {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(g.ctx, func() { cancel(errNoReplica) })()
	return g.fsm.wait(ctx, index, 0)
}

// catchUp brings groups here to where their leaders say that the level is reached.
// It asks each leading node once for all of its groups, and again for those of which
// it was none.
func (n *Node) catchUp(ctx context.Context, level Level, open []*group) error {
	for {
		byLeader := map[string][]*group{}
		for _, g := range open {
			leader, _ := g.raft.LeaderWithID()
			byLeader[string(leader)] = append(byLeader[string(leader)], g)
		}
		var mu sync.Mutex
		var left []*group
		eg, ectx := errgroup.WithContext(ctx)
		for leader, groups := range byLeader {
			eg.Go(func() error {
				indexes := n.askReadIndexes(ectx, leader, groups, level)
				for i, g := range groups {
					if i >= len(indexes) || indexes[i] == 0 {
						mu.Lock()
						left = append(left, g)
						mu.Unlock()
					} else if err := g.wait(ectx, indexes[i]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := eg.Wait(); err != nil {
			return err
		}
		if open = left; len(open) == 0 {
			return nil
		}
		if n.pause(ctx) != nil {
			cause := context.Cause(ctx)
			if !errors.Is(cause, model.ErrUnavailable) {
				cause = fmt.Errorf("%w: %w", model.ErrUnavailable, cause)
			}
			return fmt.Errorf("%w; %s has no leader that a majority confirms", cause, open[0].name())
		}
	}
}

// askReadIndexes asks a node for the indexes of groups that it leads. A 0, or
// nothing, stands for a group of which it can't tell.
func (n *Node) askReadIndexes(ctx context.Context, leader string, groups []*group, level Level) []uint64 {
	if leader == "" {
		return nil
	}
	ctx, cancel := n.whileLed(ctx, leader, groups)
	defer cancel()
	switch leader {
	case n.name:
		indexes, _ := n.readIndexes(ctx, groups, level)
		return indexes
	}
	req := putBytes(putUvarints(nil, uint64(level)), n.name)
	for _, g := range groups {
		req = putUvarints(req, g.id)
	}
	b, err := n.link(leader).call(ctx, kindReadIndex, 0, req)
	if err != nil {
		return nil
	}
	var out []uint64
	for d := (decoder{b: b}); len(d.b) > 0; {
		out = append(out, d.uvarint())
	}
	return out
}

// errMoved: a group has another leader than the one that was asked.
var errMoved = fmt.Errorf("%w: another node leads by now", model.ErrUnavailable)

// whileLed returns a context for one attempt to ask a leader of groups. It ends with errMoved
// soon after one of them is known to have another: the one that is asked may hang.
func (n *Node) whileLed(ctx context.Context, leader string, groups []*group) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	cctx, end := context.WithCancelCause(ctx)
	late := time.AfterFunc(n.opts.Heartbeat/2, func() { // hardly ever is there another before
		for n.pause(cctx) == nil {
			if slices.ContainsFunc(groups, func(g *group) bool { now := n.localLeader(g.id); return now != "" && now != leader }) {
				end(errMoved)
			}
		}
	})
	return cctx, func() {
		late.Stop()
		end(nil)
		cancel()
	}
}

// answerReadIndexes is the other side of askReadIndexes. The asking node will wait for
// the indexes, so it is told at once that they are committed.
func (n *Node) answerReadIndexes(ctx context.Context, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	level, from := Level(d.uvarint()), string(d.bytes())
	var groups []*group
	for len(d.b) > 0 {
		g := n.group(d.uvarint())
		if g == nil {
			return nil, errNoReplica
		}
		groups = append(groups, g)
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	indexes, terms := n.readIndexes(ctx, groups, level)
	for i, g := range groups {
		if indexes[i] != 0 {
			g.announceTo(place{terms[i], indexes[i]}, from)
		}
	}
	return putUvarints(nil, indexes...), nil
}

// readIndexes returns, for each group that this node leads, an index such that a
// replica which has come to it shows what the level asks for, 0 for the others, and the
// terms in which it led them.
//
// An entry of the leader's own term is committed first, so that its commit index
// covers everything acknowledged in earlier terms. A leader at level Linearizable is
// one of whom a majority says, after the call began, that it knows no later term.
func (n *Node) readIndexes(ctx context.Context, groups []*group, level Level) (indexes, terms []uint64) {
	indexes, terms = make([]uint64, len(groups)), make([]uint64, len(groups))
	for i, g := range groups {
		terms[i] = g.raft.CurrentTerm()
		if g.leads() && g.fsm.wait(ctx, 0, terms[i]) == nil {
			indexes[i] = g.ledIndex(terms[i])
		}
	}
	if level == Linearizable {
		n.confirm(ctx, groups, terms, indexes)
	}
	return indexes, terms
}

// confirm clears the index of each group of which no majority knows the term as the
// newest. It asks each peer once for all groups. A later folder may answer for a voter that is
// lost: it knows no term in which this node does not lead, if it knows this one, since whoever
// leads takes the lost voter out, by a majority, before it lets the later one in.
func (n *Node) confirm(ctx context.Context, groups []*group, terms, indexes []uint64) {
	missing := make([]int, len(groups)) // votes to a majority
	asked := map[string][]int{}         // by node
	for i, g := range groups {
		if indexes[i] == 0 {
			continue
		}
		voters := g.voters()
		missing[i] = len(voters)/2 + 1
		for _, s := range voters {
			if s.ID != n.raftID {
				asked[string(s.Address)] = append(asked[string(s.Address)], i)
			} else if g.raft.CurrentTerm() == terms[i] {
				missing[i]--
			}
		}
	}
	type answer struct {
		of      []int
		members []progress
	}
	answers := make(chan answer, len(asked))
	for name, of := range asked {
		go func() {
			ids := make([]uint64, len(of))
			for k, i := range of {
				ids[k] = groups[i].id
			}
			ts, err := n.askTerms(ctx, name, ids...)
			if err != nil {
				ts = nil
			}
			answers <- answer{of, ts}
		}()
	}
	for range asked {
		a := <-answers
		for k, t := range a.members {
			if i := a.of[k]; t.term == terms[i] {
				missing[i]--
			}
		}
		if slices.Max(missing) <= 0 {
			break
		}
	}
	for i := range groups {
		if missing[i] > 0 {
			indexes[i] = 0
		}
	}
}

// progress is what a member says of itself in one group.
type progress struct {
	term     uint64
	consumed uint64 // entries that its state machine has seen
	draining bool   // it wants no leadership
}

// answerTerms says how far this node is in each of the groups.
func (n *Node) answerTerms(data []byte) ([]byte, error) {
	var out []byte
	for d := (decoder{b: data}); len(d.b) > 0; {
		g := n.group(d.uvarint())
		if g == nil { // nothing can be said; no leader has term 0
			out = putBool(putUvarints(out, 0, 0), true)
			continue
		}
		out = putUvarints(out, g.raft.CurrentTerm(), g.fsm.consumed())
		out = putBool(out, n.wantsNone())
	}
	return out, nil
}

// askTerms asks a node how far it is in each of the groups.
func (n *Node) askTerms(ctx context.Context, name string, groups ...uint64) ([]progress, error) {
	b, err := n.link(name).call(ctx, kindTerms, 0, putUvarints(nil, groups...))
	if err != nil {
		return nil, err
	}
	d := &decoder{b: b}
	out := make([]progress, len(groups))
	for i := range out {
		out[i] = progress{d.uvarint(), d.uvarint(), d.bool()}
	}
	return out, d.end()
}

// freshness tracks how old a follower's state may be.
type freshness struct {
	mu struct {
		sync.Mutex
		at      time.Time // everything that was committed then is here
		nextAt  time.Time // what was committed then
		nextIdx uint64    // lies within this index
	}
}

// heard notes that all which was committed at a time lies within an index. What is known of a
// later time stays known.
func (f *freshness) heard(at time.Time, committed, consumed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.advanceLocked(consumed)
	if f.mu.nextAt.IsZero() && at.After(f.mu.at) {
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
// overruled since a majority followed it for sure, and knows no more than a follower before
// an entry of its term has come by.
func (g *group) staleness(now time.Time) time.Duration {
	if g.leads() && g.fsm.term() >= g.raft.CurrentTerm() {
		at := g.trans.told.backed(g.voters(), g.node.raftID, g.raft.CurrentTerm(), now)
		if at.IsZero() {
			return g.node.opts.Heartbeat // it has just been elected
		}
		return now.Sub(at)
	}
	return g.trans.fresh.age(now, g.fsm.consumed())
}

// ledUntilNow notes, when this node leads no longer, until when a majority followed it in
// that term: what it heard as a follower is from before, perhaps long before. All that had been
// committed by then is within its commit index once an entry of the term is.
func (g *group) ledUntilNow(term uint64) {
	at := g.trans.told.backed(g.voters(), g.node.raftID, term, time.Now())
	if !at.IsZero() && g.fsm.term() >= term {
		g.trans.fresh.heard(at, g.raft.CommitIndex(), g.fsm.consumed())
	}
}

// Staleness returns how old the data of the replicas here may be; very much before they
// have heard of a leader.
func (n *Node) Staleness() time.Duration { return stalest(n.serving()) }

func stalest(groups []*group) time.Duration {
	now, most := time.Now(), time.Duration(0)
	for _, g := range groups {
		most = max(most, g.staleness(now))
	}
	return most
}

// serving returns the groups from whose replicas here reads are answered.
func (n *Node) serving() []*group {
	var out []*group
	for _, g := range n.ordered() {
		if g.id == uint64(metaStream) || n.holdsShard(int(g.id)) {
			out = append(out, g)
		}
	}
	return out
}
