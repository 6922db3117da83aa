package cluster

import (
	"context"
	"sync"
	"time"
)

// signal tells any number of goroutines that something has changed.
type signal struct {
	mu struct {
		sync.Mutex
		count uint64
		next  chan struct{}
	}
}

func newSignal() *signal {
	s := &signal{}
	s.mu.next = make(chan struct{})
	return s
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.count++
	close(s.mu.next)
	s.mu.next = make(chan struct{})
}

// wait returns true when the signal has been raised since seen, which it brings up to
// date, or after some time; false when ctx has ended.
func (s *signal) wait(ctx context.Context, seen *uint64, most time.Duration) bool {
	s.mu.Lock()
	now, next := s.mu.count, s.mu.next
	s.mu.Unlock()
	if now == *seen {
		timer := time.NewTimer(most)
		defer timer.Stop()
		select {
		case <-next:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	*seen = now
	return ctx.Err() == nil
}

// raised returns a channel that is closed when the signal is raised next.
func (s *signal) raised() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.next
}
