package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	rejoinPause = 300 * time.Millisecond
	changeWait  = 5 * time.Second // for one change of a group's members
	nearEntries = 8               // behind the leader, for one that is to become a voter
)

// rejoin makes a node with an empty folder a member of every group of a cluster that
// knew it under another incarnation: the old one is removed, the new one added without
// a vote, and given one when it has caught up. It runs beside everything else and is
// taken up again after a restart.
func (n *Node) rejoin() {
	for _, g := range n.ordered() {
		for n.ctx.Err() == nil {
			err := n.rejoinGroup(g)
			if err == nil {
				break
			}
			n.opts.Logger.Debug("cluster: not yet a member again", "group", g.name(), "err", err)
			select {
			case <-time.After(rejoinPause):
			case <-n.ctx.Done():
			}
		}
	}
	if n.ctx.Err() != nil {
		return
	}
	if err := n.identity.change(func(s *self) { s.Joining, s.Voter, s.Started = false, nil, true }); err != nil {
		n.fail(err)
		return
	}
	n.opts.Logger.Info("cluster: this node is a member of every group again")
}

func (n *Node) rejoinGroup(g *group) error {
	ctx, cancel := context.WithTimeout(n.ctx, 2*changeWait)
	defer cancel()
	if g.votes(n.raftID) {
		return nil
	}
	me := n.identity.get()
	leader, err := n.findLeader(ctx, g.id)
	if err != nil {
		return err
	}
	req := putBytes(putBytes(nil, me.Incarnation), n.addr)
	if _, err := n.link(leader).call(ctx, kindJoin, g.id, putBytes(req, me.Name), false); err != nil {
		return err
	}
	if err := g.fsm.wait(ctx, 1, 0); err != nil { // it has heard of the group's state
		return err
	}
	// Noted before it may be true: a voter that loses its log must never start empty.
	if err := n.identity.change(func(s *self) {
		s.Voter = maps.Clone(s.Voter)
		if s.Voter == nil {
			s.Voter = map[uint64]bool{}
		}
		s.Voter[g.id] = true
	}); err != nil {
		return err
	}
	if _, err := n.link(leader).call(ctx, kindPromote, g.id, putBytes(req, me.Name), false); err != nil {
		return err
	}
	if !g.votes(n.raftID) {
		return errBehind // the change is on its way here
	}
	return nil
}

// votes tells whether a member is a voter, as far as this node knows.
func (g *group) votes(id raft.ServerID) bool {
	return slices.ContainsFunc(g.voters(), func(s raft.Server) bool { return s.ID == id })
}

// findLeader asks the peers who leads a group.
func (n *Node) findLeader(ctx context.Context, group uint64) (string, error) {
	for _, addr := range n.opts.Peers {
		if addr == n.addr {
			continue
		}
		b, err := n.link(addr).call(ctx, kindLeader, group, nil, false)
		if err == nil && len(b) > 0 {
			return string(b), nil
		}
	}
	return "", fmt.Errorf("%w: no peer knows a leader", model.ErrUnavailable)
}

// memberRequest is what a node says of itself when it wants to be in a group.
type memberRequest struct {
	id   raft.ServerID
	addr raft.ServerAddress
	name string
}

func parseMember(data []byte) (m memberRequest, err error) {
	d := &decoder{b: data}
	incarnation, addr, name := string(d.bytes()), string(d.bytes()), string(d.bytes())
	m = memberRequest{serverID(name, incarnation), raft.ServerAddress(addr), name}
	return m, d.end()
}

// admit adds a node without a vote, in the place of its earlier incarnation. Only the
// leader can.
func (g *group) admit(data []byte) error {
	m, err := parseMember(data)
	if err != nil {
		return err
	}
	if want := g.node.opts.Peers[m.name]; want != string(m.addr) {
		return fmt.Errorf("%w: node %s is at %s here, not at %s", ErrIdentity, m.name, want, m.addr)
	}
	if !g.leads() {
		return errNotLeader
	}
	f := g.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return raftError(err)
	}
	for _, s := range f.Configuration().Servers {
		if s.ID == m.id {
			return nil
		}
	}
	for _, s := range f.Configuration().Servers {
		if !strings.HasPrefix(string(s.ID), m.name+"@") {
			continue
		}
		g.node.opts.Logger.Warn("cluster: removing a member whose folder is lost", "group", g.name(), "id", s.ID)
		if err := g.raft.RemoveServer(s.ID, 0, changeWait).Error(); err != nil {
			return raftError(err)
		}
	}
	if err := g.raft.AddNonvoter(m.id, m.addr, 0, changeWait).Error(); err != nil {
		return raftError(err)
	}
	return nil
}

// promote gives a vote to a node that has caught up.
func (g *group) promote(ctx context.Context, data []byte) error {
	m, err := parseMember(data)
	if err != nil {
		return err
	}
	if !g.leads() {
		return errNotLeader
	}
	t, err := g.node.askTerms(ctx, string(m.addr), g.id)
	if err != nil {
		return err
	}
	if t[0].consumed+nearEntries < g.fsm.consumed() {
		return fmt.Errorf("%w: at entry %d of %d", errBehind, t[0].consumed, g.fsm.consumed())
	}
	if err := g.raft.AddVoter(m.id, m.addr, 0, changeWait).Error(); err != nil {
		return raftError(err)
	}
	return nil
}

var errBehind = errors.New("the node has not caught up")
