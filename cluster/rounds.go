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
	opRoom       = 16      // bytes that an operation may take in it besides its own
	roundWait    = 5 * time.Millisecond
	roundPace    = 4 * time.Millisecond // between the starts of rounds, for each proposal too many
	roundMost    = 20 * time.Millisecond
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
			settled, pace := n.round(first)
			timer.Reset(roundWait)
			select {
			case <-settled:
				timer.Stop()
			case <-timer.C:
			case <-n.ctx.Done():
				return
			}
			time.Sleep(time.Until(began.Add(pace)))
		case <-n.ctx.Done():
			return
		}
	}
}

// round proposes first and whatever waits behind it, an entry a group. The channel
// closes when all entries are settled. The pace is how long after this round the next one
// may begin: an entry costs three nodes more than what is in it, so the more proposals an
// entry holds, the longer the next may gather.
func (n *Node) round(first *proposal) (_ <-chan struct{}, pace time.Duration) {
	entries := map[*group]*entry{}
	proposals := 0
	for p := first; p != nil; p = n.waiting() {
		if p.stamp.term != p.g.raft.CurrentTerm() {
			p.done(0, engine.Result{}, errLate)
			continue
		}
		proposals++
		e := entries[p.g]
		if e == nil {
			e = &entry{}
			entries[p.g] = e
		}
		e.proposals = append(e.proposals, p)
		if e.size += len(p.op) + opRoom; e.size >= maxEntry {
			break
		}
	}
	settled := make(chan struct{})
	if len(entries) == 0 {
		close(settled)
		return settled, 0
	}
	var open atomic.Int64
	open.Store(int64(len(entries)))
	one := func() {
		if open.Add(-1) == 0 {
			close(settled)
		}
	}
	links := map[*link]int{}
	for g := range entries {
		g.trans.flowing.count(links)
	}
	expect(links)
	for g, e := range entries {
		data := make([]byte, 0, e.size)
		for _, p := range e.proposals {
			data = g.join(data, p.op)
		}
		e.settled = one
		e.future = until(g, g.raft.Apply(data, roundWait))
		select {
		case g.ahead <- e:
			if g.ctx.Err() != nil { // settle may have ended
				g.abandon()
			}
		default:
			// Its outcome stays open; the group is stuck, and retries are harmless.
			e.fail(fmt.Errorf("%w: %s has %d entries on their way", model.ErrOverloaded, g.name(), entriesAhead))
			one()
		}
	}
	return settled, min(roundMost, roundPace*time.Duration(proposals/len(entries)-1))
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
