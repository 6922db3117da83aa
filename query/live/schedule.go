package live

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/strandline-db/strandline/wal/clock"
)

// task is something that runs when it is due, one run at a time.
type task interface {
	// run does what is due at now and returns when to run next; the zero time: never
	// again, unless the task is kicked.
	run(ctx context.Context, now time.Time) time.Time
	state() *taskState
	// class says which workers may run it. May change from run to run.
	class() class
}

// class keeps what takes microseconds from waiting behind what may take seconds.
type class uint8

const (
	light   class = iota // works in memory
	heavy                // runs queries
	classes              // how many there are
)

// taskState is a task's place in its scheduler, which guards it.
type taskState struct {
	due     time.Time
	at      int // in the heap, plus one; 0: not there
	queued  bool
	running bool
	again   bool  // kicked while it ran
	as      class // of the workers that run it; for the run to see
}

// scheduler runs tasks: one goroutine watches the clock, a few work.
type scheduler struct {
	clock clock.Clock
	ctx   context.Context
	wg    sync.WaitGroup
	kicks chan struct{} // the earliest due time has changed
	mu    struct {
		sync.Mutex
		due   dueHeap
		ready [classes][]task
	}
	work [classes]*sync.Cond // ready has grown, or ctx has ended
}

func newScheduler(ctx context.Context, c clock.Clock, workers [classes]int) *scheduler {
	s := &scheduler{clock: c, ctx: ctx, kicks: make(chan struct{}, 1)}
	for c, n := range workers {
		s.work[c] = sync.NewCond(&s.mu)
		s.wg.Add(n)
		for range n {
			go s.worker(class(c))
		}
	}
	s.wg.Add(1)
	go s.watch()
	return s
}

// wait joins the goroutines, whose context has ended.
func (s *scheduler) wait() {
	s.mu.Lock()
	for _, w := range s.work {
		w.Broadcast()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// kick makes a task run soon: at once, or once more after the run it is in.
func (s *scheduler) kick(t task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readyLocked(t)
}

func (s *scheduler) readyLocked(t task) {
	st := t.state()
	switch {
	case st.running:
		st.again = true
	case !st.queued:
		if st.at > 0 {
			heap.Remove(&s.mu.due, st.at-1)
		}
		st.queued = true
		c := t.class()
		s.mu.ready[c] = append(s.mu.ready[c], t)
		s.work[c].Signal()
	}
}

// watch moves tasks that are due to the workers.
func (s *scheduler) watch() {
	defer s.wg.Done()
	for {
		wait, now, some := s.moveDue()
		var timer <-chan time.Time
		release := func() {}
		if some {
			timer, release = s.clock.After(wait)
			if s.clock.Now().Sub(now) >= time.Millisecond { // it was set too late, by as much
				release()
				continue
			}
		}
		select {
		case <-timer:
		case <-s.kicks:
		case <-s.ctx.Done():
			release()
			return
		}
		release()
	}
}

// moveDue returns how long, at now, the earliest of the others has to wait.
func (s *scheduler) moveDue() (wait time.Duration, now time.Time, some bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now = s.clock.Now()
	for len(s.mu.due) > 0 {
		if wait = s.mu.due[0].state().due.Sub(now); wait > 0 {
			return wait, now, true
		}
		s.readyLocked(s.mu.due[0])
	}
	return 0, now, false
}

func (s *scheduler) worker(c class) {
	defer s.wg.Done()
	for {
		t := s.take(c)
		if t == nil {
			return
		}
		s.done(t, t.run(s.ctx, s.clock.Now()))
	}
}

func (s *scheduler) take(c class) task {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mu.ready[c]) == 0 && s.ctx.Err() == nil {
		s.work[c].Wait()
	}
	if s.ctx.Err() != nil {
		return nil
	}
	t := s.mu.ready[c][0]
	s.mu.ready[c][0] = nil
	if s.mu.ready[c] = s.mu.ready[c][1:]; len(s.mu.ready[c]) == 0 {
		s.mu.ready[c] = nil
	}
	st := t.state()
	st.queued, st.running, st.as = false, true, c
	return t
}

func (s *scheduler) done(t task, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := t.state()
	again := st.again
	st.running, st.again = false, false
	switch {
	case again:
		s.readyLocked(t)
	case !next.IsZero():
		st.due = next
		heap.Push(&s.mu.due, t)
		if st.at == 1 {
			select {
			case s.kicks <- struct{}{}:
			default:
			}
		}
	}
}

// dueHeap orders tasks by due time.
type dueHeap []task

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].state().due.Before(h[j].state().due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].state().at, h[j].state().at = i+1, j+1
}

// Push implements heap.Interface.
func (h *dueHeap) Push(x any) {
	t := x.(task)
	*h = append(*h, t)
	t.state().at = len(*h)
}

// Pop implements heap.Interface.
func (h *dueHeap) Pop() any {
	old := *h
	n := len(old) - 1
	t := old[n]
	old[n] = nil
	*h = old[:n]
	t.state().at = 0
	return t
}
