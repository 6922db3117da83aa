package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// peerGone is called when a node's connection has ended and its host says that nobody
// listens there any more: the process has died, which is known at once, long before
// a heartbeat would be missed. One follower of each group that it led stands for
// election without waiting: the next voter in order, so that two do not split the
// votes. The others, and this one if it loses, go by the heartbeat.
func (n *Node) peerGone(name string) {
	for _, g := range n.ordered() {
		if leader, _ := g.raft.LeaderWithID(); string(leader) == name && g.next(name) == n.raftID {
			n.opts.Logger.Info("cluster: standing for election, the leader is gone", "group", g.name(), "leader", name)
			g.trans.standNow()
		}
	}
}

// next returns the voter that comes after the named node.
func (g *group) next(name string) raft.ServerID {
	voters := g.voters()
	for i, s := range voters {
		if string(s.Address) == name {
			return voters[(i+1)%len(voters)].ID
		}
	}
	return ""
}

// voters returns the group's voters in order of their ids; none when Raft has stopped.
func (g *group) voters() []raft.Server {
	f := g.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var voters []raft.Server
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s)
		}
	}
	slices.SortFunc(voters, func(a, b raft.Server) int { return compare(a.ID, b.ID) })
	return voters
}

// hearken has each follower's Raft notice the silence of its leader at the node's beat. Raft
// itself looks by a timer that fires anywhere from once to twice the heartbeat timeout, and
// again as late if it came a little too early. A follower that has noticed is refused the vote of
// one that has not, and then rests as long: with many groups, one of them took seconds.
func (n *Node) hearken() {
	for n.ctx.Err() == nil {
		n.beat.wait(n.ctx)
		for _, g := range n.ordered() {
			g.hearken(n.opts.Heartbeat + n.beat.every)
		}
	}
}

// hearken makes Raft look at once when a follower has not heard its leader for so long. Raft
// does when it is told that its timeout has become shorter.
func (g *group) hearken(patience time.Duration) {
	r := g.started.Load()
	if r == nil || r.State() != raft.Follower {
		return
	}
	last := r.LastContact()
	if leader, _ := r.LeaderWithID(); leader == "" || last.IsZero() || time.Since(last) < patience {
		return
	}
	c := r.ReloadableConfig()
	for _, timeout := range []time.Duration{g.node.opts.Heartbeat + 1, g.node.opts.Heartbeat} {
		c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout
		if err := r.ReloadConfig(c); err != nil {
			g.node.opts.Logger.Warn("cluster: Raft does not look whether its leader is silent", "group", g.name(), "err", err)
			return
		}
	}
}

// standNow makes this node's Raft stand for election, as a leader does that hands over.
func (t *transport) standNow() {
	rpc := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax,
		ID: []byte(t.node.raftID), Addr: []byte(t.node.name)}}, RespChan: make(chan raft.RPCResponse, 1)}
	_ = t.queue(rpc) // if it is busy the heartbeat decides
}
