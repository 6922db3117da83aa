package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// repairEvery is how often a damaged block that could not be repaired is tried again.
const repairEvery = 10 * rejoinPause

// lease is how long an offer to a node that repairs a block stays open.
const lease = 10 * time.Minute

// repairs is the goroutine that brings damaged blocks back from other replicas, one
// after another. One that no replica can serve now keeps no other waiting, and is tried again.
func (n *Node) repairs() {
	var later []engine.Damage
	again := time.NewTicker(repairEvery)
	defer again.Stop()
	for {
		select {
		case d := <-n.replicas.Damaged():
			if !n.repair(&d) {
				later = append(later, d)
			}
		case <-again.C:
			later = slices.DeleteFunc(later, func(d engine.Damage) bool { return n.repair(&d) })
		case <-n.ctx.Done():
			return
		}
	}
}

// repair returns true when nothing is left to do: also when the replica is gone, or the node.
func (n *Node) repair(d *engine.Damage) bool {
	g := n.group(uint64(d.Shard))
	if g == nil || g.ctx.Err() != nil {
		return true
	}
	err := n.repairFromAny(g, d.Block)
	switch {
	case err == nil:
		n.metrics.repairs.Inc()
	case errors.Is(err, model.ErrFailed):
		n.fail(err)
	default:
		n.opts.Logger.Info("cluster: a damaged block can't be repaired yet", "shard", d.Shard, "block", d.Block, "err", err)
		return false
	}
	return true
}

// repairFromAny asks one voter after another.
func (n *Node) repairFromAny(g *group, block string) error {
	err := fmt.Errorf("%w: there is no other replica", model.ErrUnavailable)
	reach := uint64(0)
	for _, b := range n.replicas.Shard(int(g.id)).Manifest().Blocks {
		if b.Name == block {
			reach = b.ToIndex
		}
	}
	for _, s := range g.voters() {
		if s.ID == n.raftID {
			continue
		}
		if err = n.repairFrom(g, block, reach, string(s.Address)); err == nil {
			return nil
		}
	}
	return err
}

// repairFrom asks a node for what it has of a block, which reaches up to an entry.
func (n *Node) repairFrom(g *group, block string, reach uint64, addr string) error {
	ctx, cancel := context.WithTimeout(n.ctx, lease)
	defer cancel()
	ask, done := context.WithTimeout(ctx, appendWait)
	defer done()
	b, err := n.link(addr).call(ask, kindOffer, g.id, putUvarints(nil, reach))
	if err != nil {
		return err
	}
	d := &decoder{b: b}
	id, applied := d.uvarint(), d.uvarint()
	if d.bad {
		return errMessage
	}
	defer n.link(addr).start(kindRelease, g.id, putUvarints(nil, id), func([]byte, error) {})
	if err := g.fsm.wait(ask, applied, 0); err != nil {
		return err
	}
	return n.replicas.Shard(int(g.id)).Repair(ctx, block, d.b, n.fetcher(g.id, addr))
}

// lent are offers to nodes that repair, until they are done or the lease ends.
type lent struct {
	shard uint64
	offer *engine.Offer
	timer *time.Timer
}

// answerOffer offers this node's sound blocks of a shard to one that repairs, which may in turn
// have those that are damaged here. It makes durable what that needs: it may be long until a
// replica with few new samples would flush by itself.
func (n *Node) answerOffer(ctx context.Context, g *group, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	reach := uint64(0) // that of a node of an earlier version
	if len(data) > 0 {
		reach = d.uvarint()
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	if at, ok := g.machine.mark(); !ok || at.Applied < reach {
		if err := g.flush(ctx); err != nil {
			return nil, err
		}
	}
	return n.offer(g.id, reach, (*engine.Replica).OfferSound)
}

// extend puts off the end of the leases of a shard's offers, of which one is in use.
func (n *Node) extend(shard uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.mu.lent {
		if l.shard == shard {
			l.timer.Reset(lease)
		}
	}
}

// offer lends what is durable here of a shard, if it has come to an entry: the number of
// the offer, the entry that it has come to, and the engine's offer, which make makes.
func (n *Node) offer(shard, least uint64, make func(*engine.Replica, context.Context) (*engine.Offer, error)) ([]byte, error) {
	if shard >= uint64(n.replicas.Len()) {
		return nil, errMessage
	}
	o, err := make(n.replicas.Shard(int(shard)), n.ctx)
	if err != nil {
		return nil, err
	}
	if at := o.Manifest.Applied; at < least {
		return nil, errors.Join(fmt.Errorf("%w: entry %d is durable and %d is wanted", model.ErrUnavailable, at, least), o.Release())
	}
	n.mu.Lock()
	n.mu.nextLent++
	id := n.mu.nextLent
	n.mu.lent[id] = &lent{shard: shard, offer: o, timer: time.AfterFunc(lease, func() { n.takeBack(id) })}
	n.mu.Unlock()
	if n.ctx.Err() != nil { // Close may have passed by
		n.takeBack(id)
	}
	return append(putUvarints(nil, id, o.Manifest.Applied), o.Data...), nil
}

// takeBack ends an offer; again does nothing.
func (n *Node) takeBack(id uint64) {
	n.mu.Lock()
	l := n.mu.lent[id]
	delete(n.mu.lent, id)
	n.mu.Unlock()
	if l == nil {
		return
	}
	l.timer.Stop()
	if err := l.offer.Release(); err != nil {
		n.opts.Logger.Error("cluster: closing an offered block", "err", err)
	}
}

// takeBackAll ends what is lent when the node closes.
func (n *Node) takeBackAll() {
	n.mu.Lock()
	var ids []uint64
	for id := range n.mu.lent {
		ids = append(ids, id)
	}
	n.mu.Unlock()
	for _, id := range ids {
		n.takeBack(id)
	}
}
