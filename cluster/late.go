package cluster

import (
	"sync"

	"github.com/strandline-db/strandline/wal"
)

// lateWrites are entries of a leader that are on their way to the followers while this
// node's log makes them durable. A leader counts as one of the majority as soon as Raft
// has handed the entries to the log; so no follower's success is shown to Raft before the
// leader's own log holds what it speaks of (pipeline.order, transport.AppendEntries), and
// nothing is committed that fewer than a majority have on disk.
//
// Raft here takes late entries for stored, and when this node has been overruled it tells the
// next leader that it has them. No harm comes of it: that leader commits nothing before an
// entry of its own term is stored here, which waits for all that is late (logStore.StoreLogs).
type lateWrites struct {
	mu struct {
		sync.Mutex
		writes []*lateWrite // ascending
	}
}

type lateWrite struct {
	first uint64 // its entries
	last  uint64
	done  chan struct{}
	err   error
}

// add notes a write, in the order of the log. ended is told how it ended, in that order
// too, before anybody is shown that it has.
func (l *lateWrites) add(first, last uint64, p wal.Pending, ended func(error)) {
	w := &lateWrite{first: first, last: last, done: make(chan struct{})}
	l.mu.Lock()
	var before *lateWrite
	if n := len(l.mu.writes); n > 0 {
		before = l.mu.writes[n-1]
	}
	l.mu.writes = append(l.mu.writes, w)
	l.mu.Unlock()
	go func() {
		w.err = p.Wait()
		if before != nil {
			<-before.done
		}
		ended(w.err)
		close(w.done)
		l.forget()
	}()
}

// forget drops the oldest writes for as far as they have succeeded. One that failed
// stays: it is the end of its log.
func (l *lateWrites) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.mu.writes) > 0 && l.mu.writes[0].succeeded() {
		l.mu.writes = l.mu.writes[1:]
	}
}

func (w *lateWrite) succeeded() bool {
	select {
	case <-w.done:
		return w.err == nil
	default:
		return false
	}
}

// wait returns once the entries up to index are durable, as far as there are any.
func (l *lateWrites) wait(index uint64) error {
	l.mu.Lock()
	var w *lateWrite // the last one needed: those before it are durable when it is
	for _, x := range l.mu.writes {
		if x.first > index {
			break
		}
		w = x
	}
	l.mu.Unlock()
	if w == nil {
		return nil
	}
	<-w.done
	return w.err
}
