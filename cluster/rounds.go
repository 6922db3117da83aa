package cluster

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxProposals = 4096    // that wait in a node
	maxEntry     = 4 << 20 // bytes of operations joined into one entry
	roundWait    = 5 * time.Millisecond
	roundPace    = 4 * time.Millisecond // between the starts of rounds while writes come together
)

// rounds is the goroutine that makes log entries of what waits for the groups that
// this node leads. It proposes for all of them at once and begins the next round when
// this one is settled, so that what comes meanwhile shares entries, messages and
// fsyncs; a group that does not get on holds up the others by roundWait at most.
func (n *Node) rounds() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for {
		select {
		case first := <-n.queue:
			began := time.Now()
			settled, busy := n.round(first)
			timer.Reset(roundWait)
			select {
			case <-settled:
				timer.Stop()
			case <-timer.C:
			case <-n.ctx.Done():
				return
			}
			if busy {
				time.Sleep(time.Until(began.Add(roundPace)))
			}
		case <-n.ctx.Done():
			return
		}
	}
}

// round proposes first and whatever waits behind it, an entry a group. The channel
// closes when all entries are settled.
func (n *Node) round(first *proposal) (_ <-chan struct{}, busy bool) {
	entries := map[*group]*entry{}
	proposals := 0
	for p := first; p != nil; p = n.waiting() {
		proposals++
		e := entries[p.g]
		if e == nil {
			e = &entry{}
			entries[p.g] = e
		}
		e.data = p.g.join(e.data, p.op)
		if e.proposals = append(e.proposals, p); len(e.data) >= maxEntry {
			break
		}
	}
	settled := make(chan struct{})
	var open atomic.Int64
	open.Store(int64(len(entries)))
	one := func() {
		if open.Add(-1) == 0 {
			close(settled)
		}
	}
	for g, e := range entries {
		e.settled = one
		e.future = g.raft.Apply(e.data, roundWait)
		select {
		case g.ahead <- e:
		default:
			// Its outcome stays open; the group is stuck, and retries are harmless.
			e.fail(fmt.Errorf("%w: %s has %d entries on their way", model.ErrOverloaded, g.name(), entriesAhead))
			one()
		}
	}
	return settled, proposals > len(entries)
}

// waiting returns the next proposal that waits; nil if none does.
func (n *Node) waiting() *proposal {
	select {
	case p := <-n.queue:
		return p
	default:
		return nil
	}
}

func (e *entry) fail(err error) {
	for _, p := range e.proposals {
		p.done(0, engine.Result{}, err)
	}
}
