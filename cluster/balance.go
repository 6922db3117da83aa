package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

const balanceEvery = time.Second

// balance hands the leadership of groups to the nodes that should have it, one at a
// time, once they are there and have caught up, and looks after candidates.
func (n *Node) balance() {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		for _, g := range n.ordered() {
			g.unstick()
		}
		if n.replicas.ReadOnly() {
			n.shed(n.ctx)
			continue
		}
		want := n.leadersWanted()
		for _, g := range n.ordered() {
			if n.handOver(g, want[g.id]) {
				break
			}
		}
	}
}

// leadersWanted returns the node that should lead each group.
func (n *Node) leadersWanted() map[uint64]string {
	m := n.currentMap()
	shards := make([][]string, len(m.shards), len(m.shards)+1)
	for i := range m.shards {
		if m.shards[i].on(m.shards[i].Leader) {
			shards[i] = []string{m.shards[i].Leader}
			continue
		}
		for _, name := range m.shards[i].Replicas {
			if m.nodes[name].State == stateMember {
				shards[i] = append(shards[i], name)
			}
		}
	}
	var voters []string
	if g := n.meta(); g != nil {
		for _, s := range g.voters() {
			voters = append(voters, string(s.Address))
		}
	}
	out := map[uint64]string{}
	for i, name := range preferred(append(shards, voters)) {
		id := uint64(i)
		if i == len(shards) {
			id = uint64(metaStream)
		}
		out[id] = name
	}
	return out
}

// wantsNone tells whether this node should lead nothing: it is to stop, or its disk is
// nearly full, and as a leader it would refuse what the others can take.
func (n *Node) wantsNone() bool { return n.draining.Load() || n.replicas.ReadOnly() }

// shed transfers what this node leads to whoever takes it, until ctx ends.
func (n *Node) shed(ctx context.Context) {
	for _, g := range n.ordered() {
		if ctx.Err() != nil || !g.leads() {
			continue
		}
		for _, s := range g.voters() {
			if s.ID != n.raftID && n.transfer(g, s) {
				break
			}
		}
	}
}

// handOver transfers a group that this node leads to the member that should; false if
// there is nothing to do.
func (n *Node) handOver(g *group, want string) bool {
	if want == "" || want == n.name || !g.leads() || n.wantsNone() {
		return false
	}
	for _, s := range g.voters() {
		if string(s.Address) == want {
			return n.transfer(g, s)
		}
	}
	return false
}

// transfer hands a group that this node leads to a voter, if it has caught up and wants it.
func (n *Node) transfer(g *group, to raft.Server) bool {
	ctx, cancel := context.WithTimeout(n.ctx, balanceEvery)
	defer cancel()
	at := g.fsm.consumed() // before it answers; see mayVote
	t, err := n.askTerms(ctx, string(to.Address), g.id)
	if err != nil || t[0].draining || t[0].consumed+nearEntries < at {
		return false
	}
	if err := g.transfer(to); err != nil {
		n.opts.Logger.Debug("cluster: leadership not transferred", "group", g.id, "to", to.ID, "err", err)
	}
	return true
}
