package cluster

import (
	"context"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
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
