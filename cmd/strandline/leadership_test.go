package main

import (
	"sync/atomic"
	"testing"
	"time"
)

// TestLeadershipIsToldToAll: whoever else asks meanwhile, each listener learns of each
// change, and then asks for no less.
func TestLeadershipIsToldToAll(t *testing.T) {
	var leads atomic.Bool
	l := watchLeadership(leads.Load, 2)
	defer l.close()
	stop := make(chan struct{})
	asked := make(chan struct{})
	go func() { // as the handlers of requests do
		defer close(asked)
		for {
			select {
			case <-stop:
				return
			default:
				l.listener(0).Leads()
				l.listener(1).Leads()
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for _, now := range []bool{true, false, true} {
		leads.Store(now)
		for n := range 2 {
			select {
			case <-l.listener(n).Changed():
			case <-time.After(30 * time.Second):
				t.Fatalf("listener %d was not told of %v", n, now)
			}
			if got := l.listener(n).Leads(); got != now {
				t.Errorf("listener %d: got %v, want %v", n, got, now)
			}
		}
	}
	close(stop)
	<-asked
}
