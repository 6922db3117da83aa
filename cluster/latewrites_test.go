package cluster

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

// hungLog is a log whose syncs wait for release, and then end with err.
func hungLog(t *testing.T, err *error) (log *wal.Log, release chan struct{}) {
	release = make(chan struct{})
	hung := false
	fs := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if hung && op.Kind == vfs.OpSync {
			<-release
			return *err
		}
		return nil
	})
	log, e := wal.Open("log", &wal.Options{FS: fs})
	if e != nil {
		t.Fatal(e)
	}
	hung = true
	return log, release
}

// late puts entry index into a log as one that may be late.
func late(t *testing.T, l *lateWrites, log *wal.Log, index uint64, ended func(error)) {
	p, err := log.Begin([]wal.Entry{{Stream: 1, Index: index, Term: 1, Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	l.add(index, index, p, ended)
}

// TestLateWrites: who asks for a late write waits until the log has it, or has failed;
// what nobody asks for is written all the same.
func TestLateWrites(t *testing.T) {
	for _, failure := range []error{nil, errors.New("the disk is gone")} {
		synctest.Test(t, func(t *testing.T) {
			log, release := hungLog(t, &failure)
			defer log.Close()
			l := &lateWrites{}
			var order []uint64
			for i := range uint64(3) {
				late(t, l, log, i+1, func(error) { order = append(order, i+1) })
			}
			if err := l.wait(0); err != nil { // none is asked for
				t.Fatal(err)
			}
			waits := make(chan error, 1)
			go func() { waits <- l.wait(2) }()
			synctest.Wait()
			select {
			case err := <-waits:
				t.Fatalf("entry 2 is taken for durable: %v", err)
			default:
			}
			close(release)
			if err := <-waits; !errors.Is(err, failure) {
				t.Fatalf("%v, not %v", err, failure)
			}
			if err := l.wait(3); !errors.Is(err, failure) {
				t.Fatalf("%v, not %v", err, failure)
			}
			synctest.Wait()
			if len(order) != 3 || order[0] != 1 || order[2] != 3 {
				t.Errorf("ended in the order %d", order)
			}
			if n := len(l.mu.writes); failure == nil && n > 0 {
				t.Errorf("%d writes are kept", n)
			}
		})
	}
}

// TestOwnFirst: a follower's success is shown to Raft only when the leader's own log
// holds the entries too; if it never will, there is no success.
func TestOwnFirst(t *testing.T) {
	for _, failure := range []error{nil, wal.ErrFailed} {
		synctest.Test(t, func(t *testing.T) {
			durable := make(chan struct{})
			p := &pipeline{trans: &transport{durable: func(index uint64) error {
				if index != 7 {
					t.Errorf("waits for entry %d", index)
				}
				<-durable
				return failure
			}}, flying: make(chan *appendFuture, 1), ready: make(chan raft.AppendFuture, 1), closed: make(chan struct{})}
			ended := make(chan struct{})
			go func() { p.order(); close(ended) }()
			f := &appendFuture{args: &raft.AppendEntriesRequest{Entries: []*raft.Log{{Index: 6}, {Index: 7}}},
				resp: &raft.AppendEntriesResponse{Success: true}, done: make(chan struct{})}
			close(f.done)
			p.flying <- f
			synctest.Wait()
			if len(p.ready) > 0 {
				t.Fatal("Raft was shown a success before the leader's log had the entries")
			}
			close(durable)
			got := <-p.ready
			if got.Response().Success != (failure == nil) {
				t.Errorf("success %t after %v", got.Response().Success, failure)
			}
			_ = p.Close()
			<-ended
		})
	}
}
