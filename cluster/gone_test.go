package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestHearken: when a node falls silent both others have noticed it in each group that it led
// within the beats that this takes, not when Raft's own timers come to look.
func TestHearken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, 1)
		defer func() {
			for _, name := range s.names() {
				s.stop(name, true)
			}
			s.wg.Wait()
		}()
		for _, name := range s.names() {
			<-s.run(name).opened
		}
		if err := s.mended(); err != nil {
			t.Fatal(err)
		}
		leader := ""
		groups := func(name string) []*group { return s.run(name).node.ordered() }
		for _, g := range groups("n1") {
			if a, _ := g.raft.LeaderWithID(); a != "" {
				leader = string(a)
			}
		}
		var followers []*group
		for _, name := range s.names() {
			if name == leader {
				continue
			}
			for _, g := range groups(name) {
				if a, _ := g.raft.LeaderWithID(); string(a) == leader {
					followers = append(followers, g)
				}
			}
		}
		mend := s.cutAll(leader, true, true)
		defer mend()
		o := s.run(leader).node.opts
		s.step(o.Heartbeat + 4*o.Heartbeat/beatsIn)
		for _, g := range followers {
			if a, _ := g.raft.LeaderWithID(); string(a) == leader && g.raft.State() == raft.Follower {
				t.Errorf("%s of %s has not noticed in %v", g.name(), g.node.name, time.Since(g.raft.LastContact()))
			}
		}
	})
}
