package cluster

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestEndedGroupAnswers: a request that came before its group ended here is answered,
// though Raft does not.
func TestEndedGroupAnswers(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n1"].node
	ctx, cancel := context.WithCancel(t.Context())
	x := &transport{node: n, ctx: ctx, rpcs: make(chan raft.RPC, 1), covers: func(*raft.InstallSnapshotRequest) *raft.InstallSnapshotResponse { return nil }}
	answers := make(chan error, 1)
	x.receive(&message{kind: kindInstall, data: putInstall(forMember(n.raftID), &raft.InstallSnapshotRequest{}, nil)},
		func(_ []byte, err error) { answers <- err })
	<-x.rpcs // Raft has it, and is shut down
	cancel()
	if err := <-answers; !errors.Is(err, errNoReplica) {
		t.Error(err)
	}
}

// TestMixedAppends: a follower takes no request that its leader has put together while its log
// was cut: with what another leader made of the end, or with an entry that went behind a flush,
// of which only the term is left.
func TestMixedAppends(t *testing.T) {
	log, err := wal.Open("log", &wal.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s := &logStore{log: log, id: 1, fail: func(err error) { t.Error(err) }, mark: func() (engine.Mark, bool) { return engine.Mark{Applied: 2, Term: 5}, true }}
	for i := range uint64(3) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 5, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(index uint64) *raft.Log {
		var l raft.Log
		if err := s.GetLog(index, &l); err != nil {
			t.Fatal(err)
		}
		return &l
	}
	before := read(1)
	if err := s.DeleteRange(1, 2); err != nil { // by the flush, between two reads of one request
		t.Fatal(err)
	}
	gone, behind := read(2), read(3)
	n := &Node{raftID: "me"}
	for _, c := range []struct {
		why  string
		req  raft.AppendEntriesRequest
		want bool
	}{
		{"all behind the flush", raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 2, PrevLogTerm: gone.Term, Entries: []*raft.Log{behind}}, true},
		{"a heartbeat", raft.AppendEntriesRequest{Term: 6}, true},
		{"an entry that is gone", raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 1, PrevLogTerm: before.Term, Entries: []*raft.Log{gone, behind}}, false},
		{"the next leader's entry", raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 1, PrevLogTerm: 5, Entries: []*raft.Log{{Index: 2, Term: 6}, {Index: 3, Term: 7}}}, false},
		{"the next leader's entry from before", raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 1, PrevLogTerm: 6, Entries: []*raft.Log{{Index: 2, Term: 5}}}, false},
		{"the next leader's end", raft.AppendEntriesRequest{Term: 6, PrevLogEntry: 1, PrevLogTerm: 7}, false},
	} {
		x := &transport{node: n, ctx: t.Context(), rpcs: make(chan raft.RPC, 1), goOn: func(*raft.AppendEntriesRequest) {}}
		var refused error
		x.receive(&message{kind: kindAppend, data: putAppend(forMember(n.raftID), &c.req)}, func(_ []byte, err error) { refused = err })
		if took := len(x.rpcs) == 1; took != c.want || took != (refused == nil) {
			t.Errorf("%s: taken %t, %v", c.why, took, refused)
		}
	}
}
