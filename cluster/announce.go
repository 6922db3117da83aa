package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// announceWait is how long a commit stays unannounced. Most are told with the group's next
// entry meanwhile; of the others those of all groups share a frame.
const announceWait = 10 * time.Millisecond

// announcements are commits that the followers of this node's groups may not know of. Raft
// tells them with the next entry or after its CommitTimeout, which would have to be short,
// and many messages, for followers to show a write soon.
type announcements struct {
	wake chan struct{} // capacity 1
	mu   struct {
		sync.Mutex
		due map[*group]place // the newest of each
	}
}

func newAnnouncements() *announcements {
	a := &announcements{wake: make(chan struct{}, 1)}
	a.mu.due = map[*group]place{}
	return a
}

// add has a group's committed entry announced before long.
func (a *announcements) add(g *group, at place) {
	a.mu.Lock()
	a.mu.due[g] = at
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *announcements) take() map[*group]place {
	a.mu.Lock()
	defer a.mu.Unlock()
	due := a.mu.due
	a.mu.due = make(map[*group]place, len(due))
	return due
}

// run is the goroutine that announces, until ctx ends.
func (a *announcements) run(ctx context.Context) {
	for {
		select {
		case <-a.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(announceWait):
		case <-ctx.Done():
			return
		}
		for g, at := range a.take() {
			for _, s := range g.others() {
				if !g.trans.told.knows(s.Address, at.Index) {
					g.announce(at, s)
				}
			}
		}
	}
}

// announce tells a follower that an entry of ours is committed. The message is an
// ordinary one of the protocol: in the entry's term we were the leader, and a follower
// that has the entry has all before it.
func (g *group) announce(at place, to raft.Server) {
	g.trans.told.commit(to.Address, at.Index)
	req := &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(g.node.raftID), Addr: []byte(g.node.name)},
		Term:      at.Term, PrevLogEntry: at.Index, PrevLogTerm: at.Term, LeaderCommitIndex: at.Index,
	}
	g.node.link(string(to.Address)).start(kindAnnounce, g.id, putAppend(forMember(to.ID), req), func([]byte, error) {})
}

// announceTo announces a committed entry to one node, if that is a follower.
func (g *group) announceTo(at place, name string) {
	for _, s := range g.others() {
		if string(s.Address) == name {
			g.announce(at, s)
		}
	}
}

// others returns the group's members but this node, also those without a vote: a node that
// only follows the metadata reads there, and a move waits for its target. None when Raft
// has stopped.
func (g *group) others() []raft.Server {
	f := g.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(f.Configuration().Servers), func(s raft.Server) bool { return s.ID == g.node.raftID })
}

// announceOwn announces a committed entry to a follower, if this node made it as the
// leader that it is.
func (g *group) announceOwn(index uint64, to raft.ServerAddress) {
	var l raft.Log
	r := g.started.Load()
	if r.State() != raft.Leader || g.cached.GetLog(index, &l) != nil || l.Term != r.CurrentTerm() {
		return
	}
	g.announceTo(place{Term: l.Term, Index: index}, string(to))
}
