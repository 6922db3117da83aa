package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
)

// machine is what a group replicates. apply, freeze and restore come from one
// goroutine.
type machine interface {
	// apply applies a committed entry and returns what its proposer wants to know.
	apply(index uint64, data []byte) (any, error)
	// freeze cuts the state at the last applied entry, quickly.
	freeze() cut
	// mark returns the place of the last durable cut; false if there is none that
	// knows a configuration.
	mark() (engine.Mark, bool)
	// offer returns what another replica needs to come to the last durable cut. What
	// it refers to stays until release.
	offer() (data []byte, at engine.Mark, release func(), err error)
	// restore makes the state that of an offer, unless ctx ends.
	restore(ctx context.Context, at engine.Mark, data []byte) error
	// fetch appends to dst the answer to a replica that works on an offer.
	fetch(dst, req []byte) ([]byte, error)
}

// cut is a state on its way to disk.
type cut interface {
	// persist fails with engine.ErrSuperseded if a restore has come between.
	persist(at engine.Mark) error
	release() // after persist, or instead
}

// snapshots is a group's raft.SnapshotStore: the machine's own durable state.
type snapshots struct {
	m   machine
	log *logStore
	mu  struct {
		sync.Mutex
		staged *sink // received, not yet restored
	}
}

var _ raft.SnapshotStore = (*snapshots)(nil)

func meta(m *engine.Mark, size int) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: 1, ID: fmt.Sprintf("%d-%d", m.Applied, m.Term), Index: m.Applied, Term: m.Term, Size: int64(size),
		Configuration: raft.DecodeConfiguration(m.Configuration), ConfigurationIndex: m.ConfigurationIndex,
	}
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	m, ok := s.m.mark()
	if !ok {
		return nil, nil
	}
	return []*raft.SnapshotMeta{meta(&m, 0)}, nil
}

// Open implements raft.SnapshotStore: for an id that was just received what was
// received, once, otherwise an offer of our own for another replica.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	k := s.mu.staged
	if k != nil && k.ID() == id {
		s.mu.staged = nil
	}
	s.mu.Unlock()
	if k != nil && k.ID() == id {
		return meta(&k.at, k.buf.Len()), &received{Reader: bytes.NewReader(k.buf.Bytes()), at: k.at}, nil
	}
	data, at, release, err := s.m.offer()
	if err != nil {
		return nil, nil, err
	}
	return meta(&at, len(data)), &offered{Reader: bytes.NewReader(data), release: release}, nil
}

// received is a snapshot from the leader.
type received struct {
	*bytes.Reader
	at engine.Mark
}

// Close implements io.Closer.
func (*received) Close() error { return nil }

// offered is a snapshot for a follower.
type offered struct {
	*bytes.Reader
	release func()
}

// Close implements io.Closer.
func (o *offered) Close() error { o.release(); return nil }

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{s: s, at: engine.Mark{Applied: index, Term: term, Configuration: raft.EncodeConfiguration(c), ConfigurationIndex: configIndex}}, nil
}

// sink is a raft.SnapshotSink. Our own cuts only take its place in the log (see
// fsmCut); a received snapshot is written into it.
type sink struct {
	s   *snapshots
	at  engine.Mark
	buf bytes.Buffer
}

// Write implements io.Writer. What is written comes from a leader, and Raft would drop
// the whole log for it, acknowledged entries above it included: so one that came late and
// says only what the log has is refused (see group.covers), and Raft, which never looks
// for the end of its log again, must not go on above one that overrules the tail.
func (k *sink) Write(b []byte) (int, error) {
	if k.buf.Len() > 0 {
		return k.buf.Write(b)
	}
	if k.s.log.has(k.at.Applied, k.at.Term) {
		return 0, errCovered
	}
	if last, err := k.s.log.LastIndex(); err != nil || last >= k.at.Applied {
		err = errors.Join(errOverruled, err, k.s.log.DeleteRange(k.at.Applied, last))
		k.s.log.fail(err)
		return 0, err
	}
	return k.buf.Write(b)
}

var (
	errCovered   = errors.New("the log has everything that the snapshot has")
	errOverruled = errors.New("the end of the log was overruled by a snapshot, and has been cut; the node must start again")
)

// Close implements io.Closer.
func (k *sink) Close() error {
	if k.buf.Len() > 0 {
		k.s.mu.Lock()
		k.s.mu.staged = k
		k.s.mu.Unlock()
	}
	return nil
}

// ID implements raft.SnapshotSink.
func (k *sink) ID() string { return fmt.Sprintf("%d-%d", k.at.Applied, k.at.Term) }

// Cancel implements raft.SnapshotSink.
func (k *sink) Cancel() error { return nil }
