package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// settled starts three nodes and returns, of one that leads a group and of the others, the names.
func settled(t *testing.T) (s *sim, leader string, others []string) {
	t.Helper()
	s = newSim(t, 1)
	for _, name := range s.names() {
		<-s.run(name).opened
	}
	if err := s.mended(); err != nil {
		t.Fatal(err)
	}
	leader = s.run("n1").node.localLeader(0)
	for _, name := range s.names() {
		if name != leader {
			others = append(others, name)
		}
	}
	return s, leader, others
}

func (s *sim) end() {
	for _, name := range s.names() {
		s.stop(name, true)
	}
	s.wg.Wait()
}

// TestHearken: when a node falls silent both others have noticed it in each group that it led
// within the beats that this takes, not when Raft's own timers come to look.
func TestHearken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, leader, others := settled(t)
		defer s.end()
		var followers []*group
		for _, name := range others {
			for _, g := range s.run(name).node.ordered() {
				if g.leader() == leader {
					followers = append(followers, g)
				}
			}
		}
		o := s.run(leader).node.opts
		defer s.cutAll(leader, true, true)()
		s.step(o.Heartbeat + 4*o.Heartbeat/beatsIn)
		for _, g := range followers {
			if g.leader() == leader && g.raft.State() == raft.Follower {
				t.Errorf("%s of %s has not noticed in %v", g.name(), g.node.name, time.Since(g.raft.LastContact()))
			}
		}
	})
}

// TestWriteFindsNewLeader: a write that waits at a leader which has fallen silent, or at a node
// that passes it on to that one, is done soon after the node that took it knows another leader.
func TestWriteFindsNewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, leader, others := settled(t)
		defer s.end()
		taker, relay := s.run(others[0]), s.run(others[1])
		for _, g := range relay.node.ordered() { // whoever leads nothing finds no peer silent
			for _, v := range g.voters() {
				if g.leads() && string(v.Address) == leader {
					if err := g.transfer(v); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		defer s.cutAll(leader, true, true)()
		acknowledged := make(chan bool, 1)
		go func() { acknowledged <- taker.write(simBatch(s.next.Add(1))) }()
		for id := range uint64(simShards) {
			for l := taker.node.localLeader(id); l == "" || l == leader; l = taker.node.localLeader(id) {
				time.Sleep(10 * time.Millisecond)
			}
		}
		time.Sleep(3 * leaderWait)
		select {
		case ok := <-acknowledged:
			if !ok {
				t.Error("the write failed")
			}
		default:
			t.Error("the write still waits")
			<-acknowledged
		}
	})
}
