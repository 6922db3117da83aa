package cluster

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// TestBeat: whoever waits goes on at the same multiple of the period, and a beat that
// nobody waits for leaves nothing behind.
func TestBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBeat(100 * time.Millisecond)
		for range 3 {
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * 10 * time.Millisecond)
					b.wait(t.Context())
					if d := time.Since(b.start); d%b.every != 0 {
						t.Errorf("woken at %v", d)
					}
				})
			}
			began := time.Now()
			wg.Wait()
			if d := time.Since(began); d != b.every {
				t.Errorf("the last was woken after %v", d)
			}
			time.Sleep(5 * b.every)
		}
	})
}

// TestBacked: a leader's state is as old as the heartbeat by which the last of a majority
// is known to have followed it in this term.
func TestBacked(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	voters := func(names ...raft.ServerID) (out []raft.Server) {
		for _, n := range names {
			out = append(out, raft.Server{ID: n, Address: raft.ServerAddress(n)})
		}
		return out
	}
	var x told
	answered := func(name string, term uint64, sent int) {
		x.change(raft.ServerAddress(name), func(f *toldOne) { f.term, f.sent = term, at(sent) })
	}
	answered("b", 7, 3)
	answered("c", 7, 5)
	answered("d", 6, 8)
	for _, c := range []struct {
		voters []raft.Server
		want   time.Time
	}{
		{voters("a"), at(9)},
		{voters("a", "b"), at(3)},
		{voters("a", "b", "c"), at(5)},
		{voters("a", "b", "d"), at(3)},
		{voters("a", "d", "e"), time.Time{}},
		{voters("b", "c", "d"), at(3)}, // not itself a voter
		{voters("a", "b", "c", "d", "e"), at(3)},
		{nil, time.Time{}},
	} {
		if got := x.backed(c.voters, "a", 7, at(9)); !got.Equal(c.want) {
			t.Errorf("%v: %v, not %v", c.voters, got.Sub(start), c.want.Sub(start))
		}
	}
}

// TestHeartbeatLate: a heartbeat says how fresh a follower is by when the follower had
// answered the one before, however long it was on its way itself; what an earlier life of
// the follower had answered says nothing.
func TestHeartbeatLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		consumed := uint64(10)
		tr := &transport{node: &Node{life: 5, beat: newBeat(time.Second)}, ctx: t.Context(), consumed: func() uint64 { return consumed },
			follows: func(uint64) bool { return true }}
		handle := func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) }
		tr.heartbeat.Store(&handle)
		beat := func(committed uint64, echoed echo) (said echo) {
			done := make(chan struct{})
			tr.receiveHeartbeat(&decoder{b: putEcho(putUvarints(putAppend(nil, &raft.AppendEntriesRequest{}), committed), echoed)}, func(b []byte, err error) {
				d := &decoder{b: b}
				d.appendResponse(&raft.AppendEntriesResponse{})
				if said = d.echo(); err != nil || d.end() != nil {
					t.Errorf("answered %x, %v", b, err)
				}
				close(done)
			})
			<-done
			synctest.Wait()
			return said
		}
		age := func() time.Duration { return tr.fresh.age(time.Now(), consumed) }
		unknown := age()
		first := beat(10, echo{})
		if age() != unknown {
			t.Error("the first heartbeat, which may be old, makes the state fresh")
		}
		time.Sleep(3 * time.Second) // the next one is on its way
		beat(10, first)
		if age() != 3*time.Second {
			t.Errorf("%v old after a heartbeat that took 3 s", age())
		}
		last := beat(12, beat(10, first))
		if beat(12, last); age() != 3*time.Second {
			t.Errorf("%v old without what was committed meanwhile", age())
		}
		consumed = 12
		if age() != 0 {
			t.Errorf("%v old with all of it", age())
		}
		time.Sleep(time.Second)
		if beat(12, echo{last.life + 1, uint64(time.Hour)}); age() != time.Second {
			t.Errorf("%v old by the clock of another life", age())
		}
	})
}
