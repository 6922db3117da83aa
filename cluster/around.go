package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// A partition may leave two nodes without a connection to each other while both have one
// to a third. Then a group goes on under its leader, and the follower that does not hear
// it can't take the lead, nor ever come to what a read wants; but the third node can. So
// shards whose leader a replica here has not heard for some time are read around: this
// node asks another one that holds them to come to what is wanted, as for a shard of which
// it holds nothing, while its own replica tries too, and reads where it came about first.

// errUnheard ends the waiting of replicas here that have not heard their leaders since it
// began.
var errUnheard = fmt.Errorf("%w: the leader of a shard has not been heard of", model.ErrUnavailable)

// errMetaUnheard: this node's metadata may lack what a read wants.
var errMetaUnheard = fmt.Errorf("%w: the leader of the metadata has not been heard of", model.ErrUnavailable)

// unheard tells whether a replica here has not heard its leader for long enough that
// another may have.
func (g *group) unheard(now time.Time) bool {
	return !g.leads() && g.staleness(now) > g.node.patience()
}

// behind tells whether a replica here is not what the read wants without a leader.
func (p *reading) behind(g *group, now time.Time) bool {
	if slices.ContainsFunc(p.wanted.Applied, func(a model.ShardIndex) bool {
		return uint64(a.Shard) == g.id && g.fsm.consumed() < a.Index
	}) {
		return true
	}
	return p.wanted.Level != Stale || p.wanted.MaxStaleness > 0 && g.staleness(now) > p.wanted.MaxStaleness
}

// partUnheard tells the groups here that can be brought to what is wanted from those that
// may be better read around.
func (p *reading) partUnheard(groups []*group) (heard, unheard []*group) {
	now := time.Now()
	around := func(g *group) bool { return g.unheard(now) && p.behind(g, now) }
	if p.wanted.Held {
		around = func(g *group) bool { return p.n.detour(int(g.id)) }
	}
	for _, g := range groups {
		if around(g) {
			unheard = append(unheard, g)
		} else {
			heard = append(heard, g)
		}
	}
	return heard, unheard
}

// syncHeard is syncGroups for groups here whose leaders are heard. If one has fallen silent
// meanwhile it fails with errUnheard, and is to be read around.
func (p *reading) syncHeard(ctx context.Context, groups []*group) (time.Duration, error) {
	if p.wanted.Held {
		return p.n.syncGroups(ctx, &p.wanted, groups)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(p.n.patience()+p.n.opts.Heartbeat, func() {
		if _, unheard := p.partUnheard(groups); len(unheard) > 0 {
			cancel(errUnheard)
		}
	})
	defer late.Stop()
	return p.n.syncGroups(ctx, &p.wanted, groups)
}

// around is the outcome of syncAround.
type around struct {
	age  time.Duration
	err  error
	from *reading // that found other nodes; nil: the replicas here came to what is wanted
}

// syncAround brings the replicas here of some shards to what is wanted, or those of other
// nodes, whichever comes first. Both have ended when it returns.
func (p *reading) syncAround(ctx context.Context, groups []*group) around {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shards := make([]int, len(groups))
	for i, g := range groups {
		shards[i] = int(g.id)
	}
	ended := make(chan around, 2)
	go func() {
		age, err := p.n.syncGroups(ctx, &p.wanted, groups)
		ended <- around{age, err, nil}
	}()
	go func() {
		q := p.strict()
		age, err := q.syncAt(ctx, shards)
		ended <- around{age, err, q}
	}()
	first := <-ended
	if first.err == nil {
		cancel()
		<-ended
		return first
	}
	second := <-ended
	if second.err != nil && second.from != nil {
		return first // what became of the replicas here
	}
	return second
}

// takeOver makes the read go to the nodes that another one found for some shards.
func (p *reading) takeOver(from *reading, groups []*group) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.at == nil {
		p.mu.at = map[int]synced{}
	}
	for _, g := range groups {
		delete(p.here, int(g.id))
		p.mu.at[int(g.id)] = from.mu.at[int(g.id)]
	}
}

// metaBehind tells whether the metadata here may lack what the read wants.
func (p *reading) metaBehind() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.here != nil && p.here[int(metaStream)] == nil && !p.mu.lax
}

// withoutMeta drops the metadata from groups that are not heard: no read of shards needs
// it, and there is nobody who could be asked for it instead.
func (p *reading) withoutMeta(groups []*group) []*group {
	return slices.DeleteFunc(groups, func(g *group) bool {
		if g.id != uint64(metaStream) {
			return false
		}
		delete(p.here, int(g.id))
		return true
	})
}
