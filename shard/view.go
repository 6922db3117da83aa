package shard

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/strandline-db/strandline/shard/block"
)

// liveBlock is an open block. Views hold references; the file is closed, and
// removed if it is dead, when the last one goes.
type liveBlock struct {
	ref    BlockRef
	path   string
	r      *block.Reader // nil: it can't be opened, and bad says why
	refs   atomic.Int64
	bad    atomic.Pointer[error] // it is damaged; see suspect
	dead   atomic.Bool           // no manifest names it any more
	remove func(path string) error
}

func (b *liveBlock) release() error {
	if b.refs.Add(-1) > 0 {
		return nil
	}
	var err error
	if b.r != nil {
		err = b.r.Close()
	}
	if b.dead.Load() {
		err = errors.Join(err, b.remove(b.path))
	}
	return err
}

// view is an immutable list of live blocks, oldest in the log first.
type view struct {
	blocks []*liveBlock
	refs   atomic.Int64
}

func newView(blocks []*liveBlock) *view {
	v := &view{blocks: blocks}
	v.refs.Store(1)
	for _, b := range blocks {
		b.refs.Add(1)
	}
	return v
}

func (v *view) release() error {
	if v.refs.Add(-1) > 0 {
		return nil
	}
	var err error
	for _, b := range v.blocks {
		err = errors.Join(err, b.release())
	}
	return err
}

// views holds the current view; one writer swaps it.
type views struct {
	mu struct {
		sync.Mutex
		current *view
	}
}

func (vs *views) acquire() *view {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	vs.mu.current.refs.Add(1)
	return vs.mu.current
}

// swap installs next and returns the old view, whose reference the caller drops
// after it has released its locks, since that may close files.
func (vs *views) swap(next *view) *view {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	old := vs.mu.current
	vs.mu.current = next
	return old
}
