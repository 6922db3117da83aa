// Package clock is the interface behind which time sits, so that tests can move
// it. It is a leaf that any package may import.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time and waits. Safe for concurrent use.
type Clock interface {
	// Now returns the current time.
	Now() time.Time
	// After returns a channel that gets the time once d has passed. The second
	// result releases the wait early; it may be called more than once.
	After(d time.Duration) (<-chan time.Time, func())
}

// Real is the machine's clock.
type Real struct{}

// Now implements Clock.
func (Real) Now() time.Time { return time.Now() }

// After implements Clock.
func (Real) After(d time.Duration) (<-chan time.Time, func()) {
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// Manual is a clock that stands still until a test advances it.
type Manual struct {
	mu struct {
		sync.Mutex
		now     time.Time
		waiters map[*waiter]struct{}
	}
}

type waiter struct {
	at time.Time
	ch chan time.Time
}

// NewManual returns a clock that shows now.
func NewManual(now time.Time) *Manual {
	m := &Manual{}
	m.mu.now = now
	m.mu.waiters = map[*waiter]struct{}{}
	return m
}

// Now implements Clock.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.now
}

// After implements Clock.
func (m *Manual) After(d time.Duration) (<-chan time.Time, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &waiter{at: m.mu.now.Add(d), ch: make(chan time.Time, 1)}
	if d <= 0 {
		w.ch <- m.mu.now
		return w.ch, func() {}
	}
	m.mu.waiters[w] = struct{}{}
	return w.ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.mu.waiters, w)
	}
}

// Advance moves the clock forward and wakes whoever waited until then.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.now = m.mu.now.Add(d)
	for w := range m.mu.waiters {
		if !w.at.After(m.mu.now) {
			w.ch <- m.mu.now
			delete(m.mu.waiters, w)
		}
	}
}
