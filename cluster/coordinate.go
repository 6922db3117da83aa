package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	coordinateEvery = time.Second            // besides whenever the map changes
	coordinateSoon  = 100 * time.Millisecond // while a move is under way
	strayEvery      = 30 * time.Second       // between looks for members that the map does not know
	moveErrorEvery  = 5 * time.Second        // between notes of why a phase is not over
)

// coordinator is what the node that leads the metadata does for the whole cluster: write
// the map down, keep the metadata's voters, and carry out the plan. What it must remember
// is in the map.
type coordinator struct {
	n       *Node
	strays  time.Time          // when it last looked for them
	removed int                // nodes, then
	noted   time.Time          // the last error of a move
	mark    mark               // the last
	onPhase func(*Node, *Move) // of tests
}

// coordinate is the coordinator's goroutine. It acts only while this node leads the
// metadata; two that believe so can't both change the map, and whatever a move does to a
// group is done on condition that its members are those that were seen.
func (n *Node) coordinate() {
	c := &coordinator{n: n, onPhase: n.opts.onPhase}
	var saw uint64
	for {
		wait := coordinateEvery
		if g := n.meta(); g.leads() {
			again, err := c.round(g)
			if err != nil && n.ctx.Err() == nil {
				n.opts.Logger.Debug("cluster: coordinating", "err", err)
			}
			if again {
				wait = coordinateSoon
			}
		} else {
			c.strays = time.Time{}
		}
		if !n.mapped.wait(n.ctx, &saw, wait) {
			return
		}
	}
}

func (c *coordinator) round(g *group) (again bool, _ error) {
	ctx, cancel := context.WithTimeout(c.n.ctx, 2*changeWait)
	defer cancel()
	if err := g.fsm.wait(ctx, 0, g.raft.CurrentTerm()); err != nil { // all that earlier leaders wrote is in the map
		return true, err
	}
	if m := c.n.currentMap(); !m.seeded {
		return true, c.seed(m)
	}
	m, err := readMap(c.n.replicas.Records(mapPrefix), c.n.replicas.Len()) // currentMap comes a little later
	if err != nil {
		return false, err
	}
	verr := c.keepVoters(ctx, m)
	serr := c.removeStrays(ctx, m)
	again, err = c.runPlan(m)
	return again, errors.Join(verr, serr, err)
}

// seed writes the map down for the first time: what follows from who formed the cluster.
func (c *coordinator) seed(m *clusterMap) error {
	return c.n.changeMap(func(ch *model.RecordChange) error {
		for i := range m.shards {
			if err := put(ch, shardKey(i), 0, &m.shards[i]); err != nil {
				return err
			}
		}
		for _, name := range m.members(stateMember) {
			x := m.nodes[name]
			if at := c.n.book.of(name); len(at) > 0 && x.rev == 0 {
				x.Address = at[0]
			}
			if err := put(ch, nodePrefix+name, x.rev, &x); err != nil {
				return err
			}
		}
		return nil
	})
}

// keepVoters brings the metadata's voters one step nearer to what they should be: as many
// as metaVoters says, of the nodes that are members; those that are voters remain it.
func (c *coordinator) keepVoters(ctx context.Context, m *clusterMap) error {
	n := c.n
	id := uint64(metaStream)
	v, err := n.askConfig(ctx, id)
	if err != nil {
		return err
	}
	wanted, enough := c.wantedVoters(ctx, m, v)
	for _, sid := range wanted {
		if !v.votes(sid) {
			return n.giveVote(ctx, id, sid, v)
		}
	}
	for _, s := range v.Servers { // first: one that is dead counts while it is there
		if m.nodes[s.Node].State == stateRemoved {
			return n.removeMember(ctx, id, v, s)
		}
	}
	var errs error
	for _, s := range v.Servers {
		if !s.Voter || m.nodes[s.Node].State == "" || slices.Contains(wanted, s.ID) || !enough {
			continue
		}
		change := groupChange{Demote: s.ID, Prev: v.Index}
		if s.Node == v.Leader {
			change = groupChange{Transfer: "*"}
		}
		err := n.changeGroup(ctx, id, &change)
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, err) // another may be spared
	}
	return errs
}

// wantedVoters returns which members of the metadata's group should vote, and whether they
// are as many as there should be. If there are too many, those remain that are there.
func (c *coordinator) wantedVoters(ctx context.Context, m *clusterMap, v *groupView) (wanted []raft.ServerID, enough bool) {
	var others []raft.ServerID
	members := m.members(stateMember)
	for _, name := range members {
		switch s := v.find(serverID(name, m.nodes[name].Incarnation)); {
		case s == nil:
		case s.Voter:
			wanted = append(wanted, s.ID)
		default:
			others = append(others, s.ID)
		}
	}
	near := func(sid raft.ServerID) bool { return c.n.caughtUp(ctx, nodeOf(sid), uint64(metaStream), v) }
	most := metaVoters(len(members))
	if len(wanted) > most {
		var there, away []raft.ServerID
		for _, sid := range wanted {
			if near(sid) {
				there = append(there, sid)
			} else {
				away = append(away, sid)
			}
		}
		wanted = append(there, away...)[:most]
	}
	for _, sid := range others {
		if len(wanted) < most && near(sid) {
			wanted = append(wanted, sid)
		}
	}
	return wanted, len(wanted) == most && most > 0
}

// caughtUp tells whether a node's replica of a group is near its leader.
func (n *Node) caughtUp(ctx context.Context, name string, id uint64, v *groupView) bool {
	if name == n.name {
		g := n.group(id)
		return g != nil && g.fsm.consumed()+nearEntries >= v.Consumed
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	t, err := n.askTerms(ctx, name, id)
	return err == nil && t[0].term > 0 && t[0].consumed+nearEntries >= v.Consumed
}

// giveVote makes a member a voter, which first notes that it may be one.
func (n *Node) giveVote(ctx context.Context, id uint64, sid raft.ServerID, v *groupView) error {
	if _, err := n.call(ctx, nodeOf(sid), kindAllow, id, nil); err != nil {
		return err
	}
	return n.changeGroup(ctx, id, &groupChange{Promote: sid, Prev: v.Index})
}

// answerAllow notes that this node may have a vote from now on.
func (n *Node) answerAllow(id uint64) error {
	g := n.group(id)
	if g == nil {
		return errNoReplica
	}
	g.parting.Lock()
	defer g.parting.Unlock()
	if g.parting.on {
		return errNoReplica
	}
	return n.identity.setGroup(id, voter)
}

// removeMember takes a node out of a group, which another leads by then.
func (n *Node) removeMember(ctx context.Context, id uint64, v *groupView, s serverView) error {
	if v.Leader == s.Node {
		return n.changeGroup(ctx, id, &groupChange{Transfer: "*"})
	}
	return n.changeGroup(ctx, id, &groupChange{Remove: s.ID, Prev: v.Index})
}

// removeStrays takes out of the shards' groups the members that the map does not have
// there: those on nodes that were removed by force.
func (c *coordinator) removeStrays(ctx context.Context, m *clusterMap) error {
	removed := len(m.members(stateRemoved))
	if removed == c.removed && time.Since(c.strays) < strayEvery {
		return nil
	}
	var errs []error
	for i := range m.shards {
		s := &m.shards[i]
		if m.moving(i) {
			continue
		}
		v, err := c.n.askConfig(ctx, uint64(i))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, x := range v.Servers {
			if !s.on(x.Node) && s.Learner != x.Node {
				c.n.opts.Logger.Warn("cluster: removing a member that the map does not have", "group", groupName(uint64(i)), "id", x.ID)
				errs = append(errs, c.takeOut(ctx, i, v, x), errBehind)
				break
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.strays, c.removed = time.Now(), removed
	return nil
}

// takeOut takes a member out of a shard's group if the map, as it is now that the members were
// seen, does not have it there: this node may lead the metadata no longer, and what it goes by be
// what the map was before the next one went on. Who is put there later finds other members.
func (c *coordinator) takeOut(ctx context.Context, shard int, v *groupView, s serverView) error {
	m, err := c.n.freshMap(ctx)
	if err != nil {
		return err
	}
	if x := &m.shards[shard]; x.on(s.Node) || x.Learner == s.Node {
		return fmt.Errorf("%w: the map has shard %d on %s by now", errBehind, shard, s.Node)
	}
	return c.n.removeMember(ctx, uint64(shard), v, s)
}

// moving tells whether a move of a shard is under way.
func (m *clusterMap) moving(shard int) bool {
	if !m.plan.Open() {
		return false
	}
	return slices.ContainsFunc(m.moves, func(x Move) bool { return x.Shard == shard && x.Phase != PhasePlanned && !x.ended() })
}
