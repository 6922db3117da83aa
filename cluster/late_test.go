package cluster

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
)

// TestLateInstall: a snapshot that comes again after the log has gone on leaves what was
// acknowledged since in the follower's log. Raft itself would drop it.
func TestLateInstall(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	leader, follower := c.leaderOf(0)
	c.flush(leader)
	g := c.nodes[leader].node.group(0)
	m, body, err := g.snaps.Open("")
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	c.mustWrite("n1", 10, 10)
	f := c.nodes[follower].node
	if err := f.group(0).fsm.wait(t.Context(), m.Index+1, 0); err != nil {
		t.Fatal(err)
	}
	last := f.replicas.Log().Last(0)
	req := &raft.InstallSnapshotRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.node.raftID), Addr: []byte(g.node.name)},
		SnapshotVersion: 1, Term: g.raft.CurrentTerm(), LastLogIndex: m.Index, LastLogTerm: m.Term,
		Configuration: raft.EncodeConfiguration(m.Configuration), ConfigurationIndex: m.ConfigurationIndex, Size: int64(len(data))}
	if _, err := g.node.link(f.name).call(t.Context(), kindInstall, 0, putInstall(forMember(f.raftID), req, data)); err != nil {
		t.Fatal(err)
	}
	if now := f.replicas.Log().Last(0); now < last {
		t.Fatalf("the log ended at %d and ends at %d after a late snapshot of entry %d", last, now, m.Index)
	}
	// So it does when appends stood before it in the queue, and it came as far as Raft.
	k, err := f.group(0).snaps.Create(1, m.Index, m.Term, m.Configuration, m.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Write(data); !errors.Is(err, errCovered) {
		t.Fatalf("a late snapshot was taken: %v", err)
	}
	c.mustWrite("n1", 20, 10)
	c.checkAll()
}

// TestOverruledAboveFlush: a follower agrees with its leader on the entry of its last flush
// when its log begins right behind it, as it does where more than the trailing entries above
// were not committed. There is nothing else to agree on when these are overruled.
func TestOverruledAboveFlush(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	leader, follower := c.leaderOf(0)
	c.flush(follower)
	g, f := c.nodes[leader].node.group(0), c.nodes[follower].node
	at, ok := f.group(0).machine.mark()
	if !ok {
		t.Fatal("the flush has left no mark")
	}
	c.mustWrite("n1", 10, 10)
	if err := f.group(0).fsm.wait(t.Context(), at.Applied+1, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.group(0).cached.DeleteRange(1, at.Applied); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		prev, term uint64
		want       bool
	}{
		{at.Applied, at.Term, true},
		{at.Applied, at.Term - 1, false},
		{at.Applied - 1, at.Term, true}, // it is behind the flush, and so agreed on
	} {
		req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.node.raftID), Addr: []byte(g.node.name)},
			Term: g.raft.CurrentTerm(), PrevLogEntry: x.prev, PrevLogTerm: x.term}
		var got raft.AppendEntriesResponse
		if err := g.trans.AppendEntries(raft.ServerID(f.raftID), raft.ServerAddress(f.name), req, &got); err != nil {
			t.Fatal(err)
		}
		if got.Success != x.want {
			t.Errorf("the log begins behind entry %d, and following on %d of term %d gives %t", at.Applied, x.prev, x.term, got.Success)
		}
	}
	// What is behind the flush is skipped of a request, all of it or its beginning.
	for n, left := range map[uint64]int{1: 0, 2: 0, 4: 2} {
		req := &raft.AppendEntriesRequest{PrevLogEntry: at.Applied - 2, PrevLogTerm: at.Term, Entries: make([]*raft.Log, n), LeaderCommitIndex: at.Applied + 100}
		f.group(0).store.goOn(req)
		if req.PrevLogEntry != at.Applied || req.PrevLogTerm != at.Term || len(req.Entries) != left || req.LeaderCommitIndex != at.Applied+uint64(left) {
			t.Errorf("%d entries behind %d: %d are left behind %d, committed up to %d", n, at.Applied-2, len(req.Entries), req.PrevLogEntry, req.LeaderCommitIndex)
		}
	}
	c.mustWrite("n1", 20, 10)
	c.checkAll()
}

// leaderOf waits for a shard to have a leader, and returns it and another node.
func (c *trio) leaderOf(shard uint64) (leader, follower string) {
	c.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		for name, m := range c.nodes {
			if m.node.group(shard).leads() {
				leader = name
			} else {
				follower = name
			}
		}
		if leader != "" {
			return leader, follower
		}
		if time.Now().After(deadline) {
			c.t.Fatal("no leader")
		}
	}
}

// markedMachine has an offer of its own, and nothing else.
type markedMachine struct{ machine }

func (markedMachine) offer() ([]byte, engine.Mark, func(), error) {
	return []byte("mine"), engine.Mark{Applied: 7, Term: 2, Configuration: raft.EncodeConfiguration(raft.Configuration{})}, func() {}, nil
}

// TestReceivedOnce: what was received is restored from once; whoever asks for the same
// state later gets this node's own offer, not one of blocks that are at another.
func TestReceivedOnce(t *testing.T) {
	s := &snapshots{m: markedMachine{}}
	k := &sink{s: s, at: engine.Mark{Applied: 7, Term: 2, Configuration: raft.EncodeConfiguration(raft.Configuration{})}}
	k.buf.WriteString("theirs")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"theirs", "mine"} {
		_, r, err := s.Open(k.ID())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
}

// TestPipelineEnds: after an append that failed a pipeline takes no more, even if nobody
// reads its answers.
func TestPipelineEnds(t *testing.T) {
	c := newTrio(t, Options{})
	p, err := c.nodes["n1"].node.group(0).trans.AppendEntriesPipeline("nobody", "nowhere:1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 4 * pipelineCap {
		if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); errors.Is(err, raft.ErrPipelineShutdown) {
			return
		}
	}
	t.Fatal("the pipeline goes on")
}
