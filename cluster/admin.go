package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// ErrRefused: the cluster is not in the state that the request needs.
var ErrRefused = errors.New("refused")

// Any node takes the requests below; what they change is in the map, which the node
// that leads the metadata acts on.

// freshMap returns the map with all that was acknowledged before the call.
func (n *Node) freshMap(ctx context.Context) (*clusterMap, error) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	if _, err := n.syncGroups(ctx, &Wanted{Level: Linearizable}, []*group{n.meta()}); err != nil {
		return nil, err
	}
	m, err := readMap(n.replicas.Records(mapPrefix), n.replicas.Len())
	if err == nil && !m.seeded {
		err = errForming
	}
	return m, err
}

// Propose returns the moves that would bring every shard to where it should lie: as the
// nodes are, or, with the name of one, if that was no more to be drained; or, drained, those that
// would bring everything off it.
func (n *Node) Propose(ctx context.Context, name string, drained bool) (*Proposal, error) {
	m, err := n.freshMap(ctx)
	if err != nil {
		return nil, err
	}
	away := ""
	if name != "" {
		x, known := m.nodes[name]
		if !known || x.State == stateRemoved {
			return nil, fmt.Errorf("%w: there is no node %q in the cluster", ErrRefused, name)
		}
		if x.State = stateMember; drained {
			x.State, away = stateDraining, name
		}
		m.nodes[name] = x // m is ours alone
	}
	return propose(m, away)
}

// Rebalance begins to carry out the moves that Propose returned under this id; "" is for
// whatever they are now. It fails with ErrRefused when others would be needed by now, or
// a plan is under way.
func (n *Node) Rebalance(ctx context.Context, id, why string) (*Proposal, error) {
	m, err := n.freshMap(ctx)
	if err != nil {
		return nil, err
	}
	if m.plan.Open() {
		return nil, fmt.Errorf("%w: a plan is under way (%s, %s): wait for it or cancel it", ErrRefused, m.plan.ID, m.plan.State)
	}
	p, err := propose(m, "")
	if err != nil {
		return nil, err
	}
	if err := p.is(id); err != nil {
		return nil, err
	}
	return p, n.begin(ctx, m, p, why, nil)
}

// is fails with ErrRefused unless a proposal has the id, or that is "".
func (p *Proposal) is(id string) error {
	if id == "" || id == p.ID {
		return nil
	}
	return fmt.Errorf("%w: the plan has changed meanwhile, from %s to %s: look at it again", ErrRefused, id, p.ID)
}

// MoveShard begins to bring one replica from a node to another.
func (n *Node) MoveShard(ctx context.Context, shard int, from, to string) error {
	m, err := n.freshMap(ctx)
	switch {
	case err != nil:
		return err
	case shard < 0 || shard >= len(m.shards):
		return fmt.Errorf("%w: there is no shard %d", ErrRefused, shard)
	case m.plan.Open():
		return fmt.Errorf("%w: a plan is under way (%s, %s): wait for it or cancel it", ErrRefused, m.plan.ID, m.plan.State)
	case from != "" && !m.shards[shard].on(from):
		return fmt.Errorf("%w: shard %d is not on node %s", ErrRefused, shard, from)
	case to != "" && (m.shards[shard].on(to) || m.nodes[to].State != stateMember):
		return fmt.Errorf("%w: node %s has shard %d already, or is no member", ErrRefused, to, shard)
	case from == "" && to == "", to == "" && len(m.shards[shard].Replicas) == 1:
		return fmt.Errorf("%w: that would leave no replica", ErrRefused)
	}
	return n.begin(ctx, m, &Proposal{Moves: []Move{{Shard: shard, From: from, To: to, Phase: PhasePlanned}}}, "one move", nil)
}

// begin writes a plan down in the place of the last one, and with it a node whose state the plan
// follows from; nil: no node's.
func (n *Node) begin(ctx context.Context, m *clusterMap, p *Proposal, why string, node *NodeRecord) error {
	if len(p.Moves) == 0 && node == nil {
		return nil
	}
	now := time.Now().UTC()
	plan := Plan{ID: now.Format("20060102-150405.000"), Why: why, State: PlanRunning, Made: now, Moves: len(p.Moves)}
	err := n.changeMap(func(c *model.RecordChange) error {
		if node != nil {
			if err := put(c, nodePrefix+node.Name, node.rev, node); err != nil {
				return err
			}
		}
		if err := put(c, planKey, m.plan.revision(), &plan); err != nil {
			return err
		}
		for i := range p.Moves {
			if to := p.Moves[i].To; to != "" && (node == nil || to != node.Name) { // a member still
				c.Guards = append(c.Guards, model.Guard{Key: nodePrefix + to, Rev: m.nodes[to].rev})
			}
		}
		return putMoves(c, m.moves, p.Moves)
	})
	return n.unlessDone(ctx, err, func(m *clusterMap) bool { return m.plan != nil && m.plan.Made.Equal(now) })
}

// putMoves adds to c that moves take the place of those that were.
func putMoves(c *model.RecordChange, were, moves []Move) error {
	for i := range max(len(moves), len(were)) {
		if i >= len(moves) {
			c.Changes = append(c.Changes, model.Change{Key: moveKey(i), Delete: true})
			continue
		}
		rev := uint64(0)
		if i < len(were) {
			rev = were[i].rev
		}
		if err := put(c, moveKey(i), rev, &moves[i]); err != nil {
			return err
		}
	}
	return nil
}

// unlessDone is the outcome of a change to the map: one that met its own guards, since the
// answer to its first attempt was lost, is done. ChangeRecords knows that by itself as long
// as nobody has gone on from there (see stands); the coordinator soon does.
func (n *Node) unlessDone(ctx context.Context, err error, done func(*clusterMap) bool) error {
	if !errors.Is(err, model.ErrConflict) {
		return err
	}
	if m, merr := n.freshMap(ctx); merr == nil && done(m) {
		return nil
	}
	return fmt.Errorf("%w: %w: another change came first; look at the status, and try again", ErrRefused, err)
}

// SetPlan pauses, resumes or cancels the plan under way: the state is PlanPaused,
// PlanRunning or PlanCancelling. What is cancelled is undone as far as the move under way
// goes, unless its source has left the group already; moves that are done stay done.
func (n *Node) SetPlan(ctx context.Context, state PlanState) error {
	m, err := n.freshMap(ctx)
	if err != nil {
		return err
	}
	if !m.plan.Open() {
		return fmt.Errorf("%w: no plan is under way", ErrRefused)
	}
	if m.plan.State == PlanCancelling && state != PlanCancelling {
		return fmt.Errorf("%w: the plan is being cancelled", ErrRefused)
	}
	p := *m.plan
	p.State = state
	err = n.changeMap(func(c *model.RecordChange) error { return put(c, planKey, p.rev, &p) })
	return n.unlessDone(ctx, err, func(m *clusterMap) bool { return m.plan != nil && m.plan.ID == p.ID && m.plan.State == state })
}

// DrainNode marks a node as one that is to hold nothing, and begins to move its replicas
// to others: by the moves of that id, "" for whatever they are.
func (n *Node) DrainNode(ctx context.Context, name, id string) (*Proposal, error) {
	return n.turnNode(ctx, name, stateDraining, id, "drain "+name)
}

// AddNode gives a node that has entered, or that was to be drained, its part of the shards.
func (n *Node) AddNode(ctx context.Context, name, id string) (*Proposal, error) {
	return n.turnNode(ctx, name, stateMember, id, "add "+name)
}

// turnNode gives a node its state and begins the moves that follow from it, both or neither: a
// node that was left draining by a refusal would have no vote of the metadata, and no plan.
func (n *Node) turnNode(ctx context.Context, name string, state NodeState, id, why string) (*Proposal, error) {
	m, err := n.freshMap(ctx)
	if err != nil {
		return nil, err
	}
	x, known := m.nodes[name]
	switch {
	case !known || x.State == stateRemoved:
		return nil, fmt.Errorf("%w: there is no node %q in the cluster", ErrRefused, name)
	case m.plan.Open():
		return nil, fmt.Errorf("%w: a plan is under way (%s, %s): wait for it or cancel it", ErrRefused, m.plan.ID, m.plan.State)
	case state == stateDraining && len(without(m.members(stateMember), name)) == 0:
		return nil, fmt.Errorf("%w: %s is the only member", ErrRefused, name)
	}
	changed := x.State != state
	x.State = state
	m.nodes[name] = x // m is ours alone
	away := ""
	if state == stateDraining {
		away = name
	}
	p, err := propose(m, away)
	if err != nil {
		return nil, err
	}
	if err := p.is(id); err != nil {
		return nil, err
	}
	if !changed {
		return p, n.begin(ctx, m, p, why, nil)
	}
	return p, n.begin(ctx, m, p, why, &x)
}

// RemoveNode takes a node out of the cluster for good. Without force it must hold
// nothing: see DrainNode. With force it must be one that can't be reached, whose
// replicas are given up; it fails when that would leave a shard none.
func (n *Node) RemoveNode(ctx context.Context, name string, force bool) error {
	m, err := n.freshMap(ctx)
	if err != nil {
		return err
	}
	x, known := m.nodes[name]
	if !known || x.State == stateRemoved {
		return fmt.Errorf("%w: there is no node %q in the cluster", ErrRefused, name)
	}
	var held []string
	for i := range m.shards {
		if m.shards[i].on(name) || m.shards[i].Learner == name {
			held = append(held, fmt.Sprint(i))
		}
	}
	switch {
	case len(held) > 0 && !force:
		return fmt.Errorf("%w: node %s holds shards %s: drain it first, or, if it is dead, remove it by force", ErrRefused, name, strings.Join(held, ", "))
	case m.plan.Open() && (len(held) > 0 || m.planned(name)):
		return fmt.Errorf("%w: a plan is under way (%s, %s): cancel it first", ErrRefused, m.plan.ID, m.plan.State)
	case len(without(m.members(stateMember, stateDraining), name)) == 0:
		return fmt.Errorf("%w: it is the only node", ErrRefused)
	}
	if force && len(held) > 0 {
		if _, err := n.hello(ctx, name); name == n.name || err == nil {
			return fmt.Errorf("%w: node %s answers: drain it instead", ErrRefused, name)
		}
	}
	x.State = stateRemoved
	err = n.changeMap(func(c *model.RecordChange) error {
		c.Guards = append(c.Guards, model.Guard{Key: planKey, Rev: m.plan.revision()}) // that of a plan which leads nothing here
		for i := range m.shards {
			s := m.shards[i]
			if s.on(name) && len(s.Replicas) == 1 {
				return fmt.Errorf("%w: the only replica of shard %d is on %s: its data would be lost", ErrRefused, i, name)
			}
			if s.on(name) || s.Learner == name {
				s.Replicas = without(s.Replicas, name)
				if s.Learner == name {
					s.Learner = ""
				}
				if err := put(c, shardKey(i), s.rev, &s); err != nil {
					return err
				}
			}
		}
		return put(c, nodePrefix+name, x.rev, &x)
	})
	return n.unlessDone(ctx, err, func(m *clusterMap) bool { return m.nodes[name].State == stateRemoved })
}

// TransferLeader makes a node the one that should lead a shard, or, with "", leaves it
// to the cluster again. The leadership follows once the node has caught up.
func (n *Node) TransferLeader(ctx context.Context, shard int, to string) error {
	m, err := n.freshMap(ctx)
	switch {
	case err != nil:
		return err
	case shard < 0 || shard >= len(m.shards):
		return fmt.Errorf("%w: there is no shard %d", ErrRefused, shard)
	case to != "" && !slices.Contains(m.shards[shard].Replicas, to):
		return fmt.Errorf("%w: shard %d has no replica on node %q", ErrRefused, shard, to)
	}
	s := m.shards[shard]
	s.Leader = to
	err = n.changeMap(func(c *model.RecordChange) error { return put(c, shardKey(shard), s.rev, &s) })
	return n.unlessDone(ctx, err, func(m *clusterMap) bool { return m.shards[shard].Leader == to })
}
