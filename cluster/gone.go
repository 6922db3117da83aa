package cluster

import (
	"slices"

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

// standNow makes this node's Raft stand for election, as a leader does that hands over.
func (t *transport) standNow() {
	rpc := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax,
		ID: []byte(t.node.raftID), Addr: []byte(t.node.name)}}, RespChan: make(chan raft.RPCResponse, 1)}
	_ = t.queue(rpc) // if it is busy the heartbeat decides
}
