package cluster

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// TestHeartbeatDeposes: a leader that hears of another by a heartbeat alone, as one does that
// was mute while that one was elected, makes no entry in the other's term any more: in two logs
// an index and a term must never stand for two entries.
func TestHeartbeatDeposes(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	leader, other := c.leaderOf(0)
	g, n := c.nodes[leader].node.group(0), c.nodes[other].node
	log, before := g.store.log, g.raft.LastIndex()
	term := g.raft.CurrentTerm() + 100 // which nobody comes to by an election
	req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.raftID), Addr: []byte(n.name)}, Term: term}
	m := putEcho(putUvarints(putAppend(forMember(g.node.raftID), req), 0), echo{})
	if _, err := n.link(leader).call(t.Context(), kindHeartbeat, 0, m); err != nil {
		t.Fatal(err)
	}
	if err := until(g, g.raft.Apply(g.join(nil, nil), time.Second)).Error(); err == nil {
		t.Error("a leader of an earlier term took an entry")
	}
	for index := before + 1; index <= log.Last(0); index++ {
		if e, err := log.Get(0, index); err != nil || e.Term == term {
			t.Errorf("the leader of an earlier term made entry %d of term %d: %v", index, term, err)
		}
	}
	c.mustWrite("n1", 10, 10)
	c.checkAll()
}
