package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
)

// TestForeignToken: a read that waits for an entry of a shard that there is not is refused: it
// would see nothing of the write.
func TestForeignToken(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n1"].node
	for _, w := range []Wanted{{}, {Level: Leader}, {Partial: true}} {
		w.Applied = model.Applied{{Shard: n.replicas.Len(), Index: 1}}
		if _, _, err := n.Sync(t.Context(), w); !errors.Is(err, ErrForeign) {
			t.Errorf("%+v: %v", w, err)
		}
	}
}

// TestStaleAfterLeading: what a leader has that lost its majority is as old as the last
// word of that, not as what it heard when it last followed another.
func TestStaleAfterLeading(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	lead, err := c.nodes["n1"].node.leadOf(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	leader := lead.name
	g := c.nodes[leader].node.group(0)
	led := time.Now()
	c.await("a majority behind the leader", func() error {
		now := time.Now()
		if !g.leads() || g.staleness(now) >= now.Sub(led) {
			return errors.New("not since the write")
		}
		return nil
	})
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != leader {
			c.stop(name)
		}
	}
	c.await("a follower that knows how old its data is", func() error {
		now := time.Now()
		if g.raft.State() == raft.Leader || g.staleness(now) > now.Sub(led) {
			return errors.New("leads, or does not know")
		}
		return nil
	})
}

// noopTap holds the entry with which a leader begins its term, of the first shard.
type noopTap struct {
	held    atomic.Bool
	release chan struct{}
}

func (x *noopTap) stored(group uint64, logs []*raft.Log) func(error) {
	if group == 0 && logs[0].Type == raft.LogNoop && x.held.Load() {
		<-x.release
	}
	return func(error) {}
}

func (*noopTap) deleted(uint64, uint64, uint64) func(error) { return func(error) {} }

func (*noopTap) machine(_ uint64, m machine) machine { return m }

// TestStaleBeforeFirstEntry: a new leader does not know what is committed before an entry of
// its own term is, however often it hears from a majority: what it has, and its follower, is
// as old as the last word of the leader before it.
func TestStaleBeforeFirstEntry(t *testing.T) {
	x := &noopTap{release: make(chan struct{})}
	release := sync.OnceFunc(func() { close(x.release) })
	c := newTrio(t, Options{tap: x})
	t.Cleanup(release) // before the nodes are stopped
	c.mustWrite("n1", 0, 10)
	old, _ := c.leaderOf(0)
	x.held.Store(true)
	c.stop(old)
	down := time.Now()
	var leader, follower *group
	c.await("another leader", func() error {
		for _, m := range c.nodes {
			if g := m.node.group(0); g.raft.State() == raft.Leader {
				leader = g
			} else {
				follower = g
			}
		}
		if leader == nil {
			return errors.New("none yet")
		}
		return nil
	})
	var sent time.Time
	for beats := range 4 {
		c.await("a heartbeat", func() (err error) {
			leader.trans.told.change(raft.ServerAddress(follower.node.name), func(f *toldOne) {
				if f.term != leader.raft.CurrentTerm() || f.sent.Equal(sent) {
					err = errors.New("none answered since")
				}
				sent = f.sent
			})
			return err
		})
		for _, g := range []*group{leader, follower} {
			now := time.Now()
			if age := g.staleness(now); age < now.Sub(down) {
				t.Fatalf("after %d more heartbeats what %s has is taken to be %v old, and no leader has committed anything for %v", beats, g.node.name, age, now.Sub(down))
			}
		}
	}
	release()
	c.start(old)
	c.mustWrite(old, 10, 10)
	c.checkAll()
}

// TestFreshnessStays: what a late word says of an earlier time does not undo what is known.
func TestFreshnessStays(t *testing.T) {
	var f freshness
	now := time.Now()
	f.heard(now.Add(-time.Second), 5, 5)
	f.heard(now.Add(-time.Hour), 5, 5)
	if age := f.age(now, 5); age != time.Second {
		t.Errorf("the state is %v old", age)
	}
	f.heard(now.Add(-time.Hour), 9, 5) // nor does it keep the next from being heard
	f.heard(now, 5, 5)
	if age := f.age(now, 5); age != 0 {
		t.Errorf("the state is %v old", age)
	}
}

// TestWhileLed: a node that is asked as a leader is not waited for once another has taken its
// place.
func TestWhileLed(t *testing.T) {
	c := newTrio(t, Options{})
	n := c.nodes["n1"].node
	c.leaderOf(0)
	ctx, cancel := n.whileLed(t.Context(), "n4", []*group{n.group(0)})
	defer cancel()
	<-ctx.Done()
	if err := context.Cause(ctx); err != errMoved {
		t.Error(err)
	}
}

// TestOverruledHears: the heartbeat of a leader that another one has overruled is no sign to
// Raft that it is followed.
func TestOverruledHears(t *testing.T) {
	c := newTrio(t, Options{})
	c.mustWrite("n1", 0, 10)
	leader, other := c.leaderOf(0)
	g, f := c.nodes[leader].node.group(0), c.nodes[other].node
	term := g.raft.CurrentTerm()
	c.await("the follower's term", func() error {
		if at := f.group(0).raft.CurrentTerm(); at < term {
			return fmt.Errorf("it is %d", at)
		}
		return nil
	})
	req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.node.raftID), Addr: []byte(leader)}, Term: term - 1}
	var resp raft.AppendEntriesResponse
	if err := g.trans.sendHeartbeat(f.raftID, raft.ServerAddress(other), req, &resp); !errors.Is(err, errLaterTerm) {
		t.Errorf("got %v and %+v", err, resp)
	}
}

// TestBoundOfLeader: a node that leads for all it knows, and may be older than a read allows,
// does not serve it before a majority has confirmed that it leads.
func TestBoundOfLeader(t *testing.T) {
	c := newTrio(t, Options{Heartbeat: 2 * time.Second})
	c.mustWrite("n1", 0, 10)
	leader, _ := c.leaderOf(0)
	n := c.nodes[leader].node
	g := n.group(0)
	w := &Wanted{Level: Stale, MaxStaleness: 1} // its last heartbeat is older
	if age, err := n.syncGroups(t.Context(), w, []*group{g}); err != nil || age != 0 {
		t.Errorf("a leader that can be confirmed: %v, %v", age, err)
	}
	c.net.isolate(c.peers[leader], true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if age, err := n.syncGroups(ctx, w, []*group{g}); err == nil {
		t.Errorf("what nobody else confirms was served as %v old", age)
	}
	c.net.isolate(c.peers[leader], false)
}
