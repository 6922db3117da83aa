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

// runPlan does the next step of the plan: of the first move that has not ended. again if
// there is more to do.
func (c *coordinator) runPlan(m *clusterMap) (again bool, err error) {
	if !m.plan.Open() || m.plan.State == PlanPaused {
		return false, nil
	}
	for i := range m.moves {
		x := &m.moves[i]
		if x.ended() {
			continue
		}
		next := *x
		if m.plan.State == PlanCancelling && x.Phase == PhasePlanned {
			next.Phase = PhaseUndone
			return true, c.note(m, i, &next, nil)
		}
		ctx, cancel := context.WithTimeout(c.n.ctx, 2*changeWait)
		defer cancel()
		s, err := c.step(ctx, m, &next)
		if err == nil && (next.Phase != x.Phase || s != nil) {
			next.Error = ""
			if c.onPhase != nil {
				c.onPhase(c.n, &next)
			}
			return true, c.note(m, i, &next, s)
		}
		if err != nil && err.Error() != x.Error && time.Since(c.noted) > moveErrorEvery {
			c.noted = time.Now()
			next = *x
			next.Error = err.Error()
			return true, errors.Join(err, c.note(m, i, &next, nil))
		}
		return true, err
	}
	state := PlanDone
	if m.plan.State == PlanCancelling {
		state = PlanCancelled
	}
	return false, c.n.endPlan(m, state)
}

func (n *Node) endPlan(m *clusterMap, state PlanState) error {
	p := *m.plan
	p.State = state
	n.opts.Logger.Info("cluster: the plan has ended", "plan", p.ID, "why", p.Why, "state", state)
	return n.changeMap(func(ch *model.RecordChange) error { return put(ch, planKey, p.rev, &p) })
}

// note writes down a move's next phase and what becomes of its shard's record, on
// condition that neither they nor the plan have changed.
func (c *coordinator) note(m *clusterMap, i int, x *Move, s *ShardRecord) error {
	return c.n.changeMap(func(ch *model.RecordChange) error {
		ch.Guards = append(ch.Guards, model.Guard{Key: planKey, Rev: m.plan.rev})
		if s != nil {
			if err := put(ch, shardKey(x.Shard), s.rev, s); err != nil {
				return err
			}
		}
		return put(ch, moveKey(i), x.rev, x)
	})
}

// step does what the move's phase says, and sets the next one when that is done. It
// returns the shard's record if it changes with it.
func (c *coordinator) step(ctx context.Context, m *clusterMap, x *Move) (*ShardRecord, error) {
	s := m.shards[x.Shard]
	s.Replicas = slices.Clone(s.Replicas)
	if m.plan.State == PlanCancelling && x.Phase != PhaseUndoing && x.Phase != PhaseDeleting {
		return c.turnBack(ctx, x, &s)
	}
	v, err := c.n.askConfig(ctx, uint64(x.Shard))
	if err != nil && x.Phase != PhasePlanned {
		return nil, err
	}
	to := serverID(x.To, m.nodes[x.To].Incarnation)
	if slices.Contains([]Phase{PhaseCatchingUp, PhaseVerifying, PhasePromoting}, x.Phase) && v.find(to) == nil {
		x.Phase = PhaseAdding // anew: it has lost the folder that was added
		return nil, nil
	}
	switch x.Phase {
	case PhasePlanned:
		if x.To == "" {
			x.Phase = PhaseHandover
			return nil, nil
		}
		x.Phase, s.Learner = PhaseAdding, x.To
		return &s, nil
	case PhaseAdding:
		return nil, c.add(ctx, x, to, v)
	case PhaseCatchingUp:
		if err := c.takes(ctx, x.To); err != nil {
			return nil, err
		}
		if !c.n.caughtUp(ctx, x.To, uint64(x.Shard), v) {
			return nil, fmt.Errorf("%w: %s", errBehind, x.To)
		}
		x.Phase = PhaseVerifying
		return nil, nil
	case PhaseVerifying:
		return nil, c.verify(ctx, m, x, v)
	case PhasePromoting:
		if !v.votes(to) {
			return nil, c.n.giveVote(ctx, uint64(x.Shard), to, v)
		}
		x.Phase, s.Learner = PhaseHandover, ""
		s.Replicas = append(s.Replicas, x.To)
		return &s, nil
	case PhaseHandover:
		return c.handOver(ctx, m, x, to, v)
	case PhaseRemoving:
		if ok, err := c.out(ctx, x.Shard, x.From, v); !ok {
			return nil, err
		}
		x.Phase = PhaseDeleting
		return nil, nil
	case PhaseDeleting:
		if ok, err := c.out(ctx, x.Shard, x.From, v); !ok { // what was late of a rejoin may have let it in again
			return nil, err
		}
		return nil, c.awaitDeleted(ctx, m, x, x.From, PhaseDone)
	case PhaseUndoing:
		if ok, err := c.out(ctx, x.Shard, x.To, v); !ok {
			return nil, err
		}
		return nil, c.awaitDeleted(ctx, m, x, x.To, PhaseUndone)
	}
	return nil, fmt.Errorf("a move can't be %q", x.Phase)
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(x string) bool { return x == name })
}

// add makes a move's target a member without a vote.
func (c *coordinator) add(ctx context.Context, x *Move, to raft.ServerID, v *groupView) error {
	if v.find(to) != nil {
		x.Phase = PhaseCatchingUp
		return nil
	}
	for _, s := range v.Servers {
		if s.Node == x.To { // an earlier folder of it
			return c.n.removeMember(ctx, uint64(x.Shard), v, s)
		}
	}
	if err := c.takes(ctx, x.To); err != nil {
		return err
	}
	return c.n.changeGroup(ctx, uint64(x.Shard), &groupChange{Add: to, Prev: v.Index})
}

// takes returns nil if a node is one to give a replica to.
func (c *coordinator) takes(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	none := c.n.wantsNone()
	if name != c.n.name {
		t, err := c.n.askTerms(ctx, name, uint64(metaStream))
		if err != nil {
			return err
		}
		none = t[0].draining
	}
	if none {
		return fmt.Errorf("%w: the disk of %s is nearly full, or it is about to stop", model.ErrUnavailable, name)
	}
	return nil
}

// handOver lets a move's source leave once it leads no more, and not before the target, which
// may have failed since it got its vote, stands in for it.
func (c *coordinator) handOver(ctx context.Context, m *clusterMap, x *Move, to raft.ServerID, v *groupView) (*ShardRecord, error) {
	switch {
	case x.From == "":
		x.Phase = PhaseDone
		return nil, nil
	case v.Leader == x.From:
		return nil, c.n.handAway(ctx, m, x, v)
	case x.To != "" && !(v.votes(to) && c.n.caughtUp(ctx, x.To, uint64(x.Shard), v)):
		return nil, fmt.Errorf("%w: %s", errBehind, x.To)
	}
	s := m.shards[x.Shard]
	x.Phase = PhaseRemoving // from here on nobody reads there
	s.Replicas = without(s.Replicas, x.From)
	return &s, nil
}

// handAway gives the leadership of a move's shard to a replica that stays, the target
// first.
func (n *Node) handAway(ctx context.Context, m *clusterMap, x *Move, v *groupView) error {
	err := errBehind
	for _, name := range append([]string{x.To}, m.shards[x.Shard].Replicas...) {
		if name == "" || name == x.From {
			continue
		}
		if err = n.changeGroup(ctx, uint64(x.Shard), &groupChange{Transfer: name}); err == nil {
			return nil
		}
	}
	return err
}

// out takes a node out of a shard's group; true when it is.
func (c *coordinator) out(ctx context.Context, shard int, name string, v *groupView) (bool, error) {
	for _, s := range v.Servers {
		if s.Node == name {
			return false, c.takeOut(ctx, shard, v, s)
		}
	}
	return true, nil
}

// awaitDeleted ends a move when a node has nothing of the shard any more; of one that
// is away nobody knows, and it deletes its files when it comes back.
func (c *coordinator) awaitDeleted(ctx context.Context, m *clusterMap, x *Move, name string, then Phase) error {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	b, err := c.n.call(ctx, name, kindHolds, uint64(x.Shard), nil)
	if err == nil && len(b) == 1 && b[0] != 0 && m.nodes[name].State != stateRemoved {
		return fmt.Errorf("%w: %s still deletes its files", errBehind, name)
	}
	x.Phase = then
	return nil
}

// turnBack begins to undo a move, or, when its source is a member no longer, lets it end.
func (c *coordinator) turnBack(ctx context.Context, x *Move, s *ShardRecord) (*ShardRecord, error) {
	switch x.Phase {
	case PhaseAdding, PhaseCatchingUp, PhaseVerifying, PhasePromoting:
		x.Phase, s.Learner = PhaseUndoing, ""
	case PhaseHandover:
		x.Phase = PhaseUndoing
		s.Replicas = without(s.Replicas, x.To)
	case PhaseRemoving:
		v, err := c.n.askConfig(ctx, uint64(x.Shard))
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(v.Servers, func(m serverView) bool { return m.Node == x.From && m.Voter }) {
			x.Phase = PhaseDeleting
			return nil, nil
		}
		x.Phase = PhaseUndoing
		s.Replicas = append(without(s.Replicas, x.To), x.From)
	}
	if x.To == "" { // nothing was added that must go
		x.Phase = PhaseUndone
	}
	return s, nil
}
