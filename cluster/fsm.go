package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// fsm is a group's raft.BatchingFSM around its machine.
type fsm struct {
	ctx        context.Context // of the replica's life here: an install takes long, and ends with it
	m          machine
	fail       func(error)
	marked     func(index uint64, data []byte) error // takes a mark; see verify.go
	installing atomic.Bool                           // a state that comes from another node
	mu         struct {
		sync.Mutex
		index, term uint64 // of the last entry that came by
		moved       chan struct{}
		broken      error // an entry could not be applied: nothing after it may be
	}
}

var _ raft.BatchingFSM = (*fsm)(nil)

func newFSM(ctx context.Context, m machine, fail func(error)) *fsm {
	f := &fsm{ctx: ctx, m: m, fail: fail}
	f.mu.moved = make(chan struct{})
	if at, ok := m.mark(); ok {
		f.mu.index, f.mu.term = at.Applied, at.Term
	}
	return f
}

// applied is what Apply answers: what the machine said, and why nothing was done.
type applied struct {
	term   uint64 // of the entry
	result any
	err    error
}

// ApplyBatch implements raft.BatchingFSM.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, len(logs))
	for i, l := range logs {
		out[i] = f.Apply(l)
	}
	return out
}

// Apply implements raft.FSM. Configurations come too, for their index.
func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	err := f.mu.broken
	f.mu.Unlock()
	a := applied{term: l.Term}
	if err == nil && l.Type == raft.LogCommand {
		if isMark(l.Data) {
			err = f.marked(l.Index, l.Data)
		} else {
			a.result, err = f.m.apply(l.Index, l.Data)
		}
	}
	if err != nil {
		f.breakOff(fmt.Errorf("entry %d: %w", l.Index, err))
		a.err = fmt.Errorf("%w: %w", model.ErrFailed, err)
		return a
	}
	f.advance(l.Index, l.Term)
	return a
}

func (f *fsm) breakOff(err error) {
	f.mu.Lock()
	first := f.mu.broken == nil
	if first {
		f.mu.broken = err
	}
	f.mu.Unlock()
	if first {
		f.fail(err)
	}
}

func (f *fsm) advance(index, term uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.index, f.mu.term = index, term
	close(f.mu.moved)
	f.mu.moved = make(chan struct{})
}

func (f *fsm) consumed() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.index
}

// term returns the term of the last entry that was consumed.
func (f *fsm) term() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.term
}

// wait returns once an entry with at least this index and term has come by.
func (f *fsm) wait(ctx context.Context, index, term uint64) error {
	for {
		f.mu.Lock()
		there, moved := f.mu.index >= index && f.mu.term >= term, f.mu.moved
		f.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%w: this replica has not come to entry %d: %w", model.ErrUnavailable, index, context.Cause(ctx))
		}
	}
}

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	err := f.mu.broken
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &fsmCut{f: f, c: f.m.freeze()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	if w, ok := r.(raft.ReadCloserWrapper); ok {
		r = w.WrappedReadCloser()
	}
	x, ok := r.(*received)
	if !ok {
		return fmt.Errorf("cluster: a restore from %T", r) // our store gives nothing else
	}
	data, err := io.ReadAll(x)
	if err != nil {
		return err
	}
	f.installing.Store(true)
	defer f.installing.Store(false)
	if err := f.m.restore(f.ctx, x.at, data); err != nil {
		return err
	}
	f.advance(x.at.Applied, x.at.Term)
	return nil
}

// fsmCut is a raft.FSMSnapshot.
type fsmCut struct {
	f *fsm
	c cut
}

// Persist implements raft.FSMSnapshot. A cut of a state that an install has replaced meanwhile
// fails, and nothing else does: Raft would take it for the last snapshot after the newer one.
func (c *fsmCut) Persist(s raft.SnapshotSink) error {
	switch err := c.c.persist(s.(*sink).at); {
	case errors.Is(err, engine.ErrSuperseded):
		return err
	case err != nil:
		c.f.fail(err)
		return err
	}
	return s.Close()
}

// Release implements raft.FSMSnapshot.
func (c *fsmCut) Release() { c.c.release() }
