package cluster

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard/model"
)

// Level says what a read must see.
type Level int

// Levels of consistency.
const (
	// Stale reads what this node has.
	Stale Level = iota
	// Linearizable sees every write that was acknowledged before the read began.
	Linearizable
)

// Sync returns once a read at this node has the level: Linearizable asks the leader
// of every group for the index to come to, and waits for it. It fails with
// model.ErrUnavailable when a group has no leader or no majority within ctx.
func (n *Node) Sync(ctx context.Context, level Level) error {
	if level == Stale {
		return nil
	}
	eg, ctx := errgroup.WithContext(ctx)
	for _, g := range n.ordered() {
		eg.Go(func() error { return n.syncGroup(ctx, g) })
	}
	return eg.Wait()
}

func (n *Node) syncGroup(ctx context.Context, g *group) error {
	for {
		index, err := n.askReadIndex(ctx, g)
		if err == nil {
			return g.fsm.wait(ctx, index, 0)
		}
		if werr := n.pause(ctx); werr != nil {
			return fmt.Errorf("%w: group %d: %w", model.ErrUnavailable, g.id, err)
		}
	}
}

func (n *Node) askReadIndex(ctx context.Context, g *group) (uint64, error) {
	if g.leads() {
		return g.readIndex(ctx)
	}
	addr, _ := g.raft.LeaderWithID()
	if addr == "" {
		return 0, errNotLeader
	}
	b, err := n.link(string(addr)).call(ctx, kindReadIndex, g.id, nil, false)
	if err != nil {
		return 0, err
	}
	d := &decoder{b: b}
	index := d.uvarint()
	return index, d.end()
}
