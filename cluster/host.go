package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard/model"
)

// hostEvery is how often a node looks for what the map wants of it, besides whenever
// the map changes.
const hostEvery = 2 * time.Second

// rejoinsAhead is how many shards' replicas become members again at a time.
const rejoinsAhead = 3

// host is the goroutine that does at this node what the map says: enters the node into
// it, and starts and ends replicas.
func (n *Node) host() {
	var told bool
	for {
		wait := hostEvery
		n.askIfReplaced()
		registering, reconciling := n.register(), n.reconcile()
		if n.removed() && !told {
			n.opts.Logger.Warn("cluster: this node was removed from the cluster: stop it; nothing uses its data any more, and to take the node back in, start it on an empty folder with cluster-join",
				"folder", n.opts.Dir)
			told = true
		}
		if registering || reconciling {
			wait = rejoinPause
		}
		if !n.mapped.wait(n.ctx, &n.hostSaw, wait) {
			return
		}
	}
}

// register keeps what the map says of this node true; again if it is not yet.
func (n *Node) register() (again bool) {
	m := n.currentMap()
	if !m.seeded {
		return true // by the metadata's leader, soon
	}
	if _, _, same := n.registration(m); same {
		return false
	}
	// A node that has just joined reads the past of the map first, in which it was another;
	// and currentMap comes a little after what the replica of the metadata has applied.
	m, err := n.freshMap(n.ctx)
	if err != nil {
		return true
	}
	was, now, same := n.registration(m)
	if same || n.replaced(&was) {
		return false
	}
	if was.rev == 0 {
		now.State = stateMember
	}
	if err := n.changeMap(func(c *model.RecordChange) error { return put(c, nodePrefix+n.name, was.rev, &now) }); err != nil {
		n.opts.Logger.Debug("cluster: this node's address is not in the map yet", "err", err)
	}
	return true
}

// registration returns what a map says of this node and what it should.
func (n *Node) registration(m *clusterMap) (was, now NodeRecord, same bool) {
	was = m.nodes[n.name]
	now = NodeRecord{Name: n.name, Incarnation: n.identity.get().Incarnation, Address: n.addr, HTTP: n.opts.HTTP, State: was.State, rev: was.rev}
	return was, now, was == now
}

// changeMap commits a change to the map.
func (n *Node) changeMap(build func(*model.RecordChange) error) error {
	var c model.RecordChange
	if err := build(&c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.opts.CommitTimeout)
	defer cancel()
	return n.ChangeRecords(ctx, &c)
}

// reconcile starts and ends replicas here so that they become those of the map; again
// if they are not yet.
func (n *Node) reconcile() (again bool) {
	m, me := n.currentMap(), n.identity.get()
	if n.gone.Load() && m.nodes[n.name].State != stateRemoved {
		return false // that map is of before: nobody tells a node that was removed while it was away how it went on
	}
	var incomplete atomic.Bool
	step := func(id uint64, err error) {
		if err != nil && n.ctx.Err() == nil {
			incomplete.Store(true)
			n.opts.Logger.Debug("cluster: a replica is not yet what it should be", "group", groupName(id), "err", err)
		}
	}
	if !n.meta().has(n.raftID) && me.Groups[uint64(metaStream)] == learner && !n.removed() { // as one that has just entered
		step(uint64(metaStream), n.joinGroup(uint64(metaStream)))
	}
	var rejoins errgroup.Group // an install each: one commits and asks while another fetches
	rejoins.SetLimit(rejoinsAhead)
	for i := range m.shards {
		id, s := uint64(i), &m.shards[i]
		state := me.Groups[id]
		switch placed := s.on(n.name) || s.Learner == n.name; {
		case placed && state == "":
			step(id, n.beginLearning(id))
			incomplete.Store(true)
		case state == leaving, !placed && state != "" && m.seeded:
			step(id, n.leaveIfGone(id))
		case s.on(n.name) && (state == learner || state == voter && n.unpromoted(id)):
			rejoins.Go(func() error { step(id, n.rejoinGroup(id)); return nil })
		case s.on(n.name) && n.unled(id):
			rejoins.Go(func() error { step(id, n.rejoinIfOut(id)); return nil })
		}
	}
	_ = rejoins.Wait() // step has seen to errors
	return incomplete.Load()
}

// unpromoted tells whether a replica that was to get a vote has none: the node may have
// gone down after it noted the vote and before it got it.
func (n *Node) unpromoted(id uint64) bool {
	g := n.group(id)
	return g != nil && g.has(n.raftID) && !g.votes(n.raftID)
}

// unled tells whether a replica here knows of no leader.
func (n *Node) unled(id uint64) bool { return n.group(id) != nil && n.localLeader(id) == "" }

// rejoinIfOut makes this node a member again of a group that it takes itself for a voter of while
// its leader has it no longer: a removal that came late, when the move was undone, or one by a
// coordinator that another had overruled. Nobody tells a replica that it was removed, so it asks
// while it hears of no leader. It has its log, and gets its vote back as one that has lost it does.
func (n *Node) rejoinIfOut(id uint64) error {
	ctx, cancel := context.WithTimeout(n.ctx, attemptWait)
	defer cancel()
	v, err := n.askConfig(ctx, id)
	if err != nil || v.find(n.raftID) != nil {
		return err
	}
	n.opts.Logger.Warn("cluster: a member no longer of a group that is to have a replica here: becoming one again", "group", groupName(id))
	return n.joinGroup(id)
}

// beginLearning starts an empty replica, which hears of its group when a leader has
// added it.
func (n *Node) beginLearning(id uint64) error {
	if err := n.identity.setGroup(id, learner); err != nil {
		return err
	}
	return n.startGroup(id, nil, true)
}

// leaveIfGone ends a replica, once the group's leader says that it is no member. It may become
// one again just then, but not a voter, which acknowledges: it is asked before it gets a vote.
func (n *Node) leaveIfGone(id uint64) error {
	if g := n.group(id); g != nil { // otherwise only its files are left
		g.part(true)
		defer g.part(false)
	}
	ctx, cancel := context.WithTimeout(n.ctx, changeWait)
	defer cancel()
	v, err := n.askConfig(ctx, id)
	if err != nil {
		return err
	}
	if v.find(n.raftID) != nil {
		return fmt.Errorf("%w: it is a member still", errBehind)
	}
	n.opts.Logger.Info("cluster: this node holds a shard no longer", "group", groupName(id))
	if err := n.leave(id); err != nil {
		n.fail(fmt.Errorf("%s: %w", groupName(id), err))
		return err
	}
	return nil
}

func (g *group) part(on bool) {
	g.parting.Lock()
	defer g.parting.Unlock()
	g.parting.on = on
}

// has tells whether a group's configuration, as known here, has a member.
func (g *group) has(id raft.ServerID) bool {
	f := g.raft.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	c := f.Configuration()
	return suffrageIn(&c, id) != nil
}

// holdsShard tells whether reads of a shard are answered by the replica here.
func (n *Node) holdsShard(i int) bool {
	me := n.identity.get()
	_, lost := me.Lost[uint64(i)]
	return n.currentMap().shards[i].on(n.name) && n.group(uint64(i)) != nil && me.Groups[uint64(i)] == voter && !lost
}
