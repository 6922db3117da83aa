package cluster

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/strandline-db/strandline/shard/model"
)

// A proposal that is not answered is sent again, perhaps another way, and the first attempt
// may come to the leader when the second has been acknowledged and a newer write of the
// same sample has followed. Applied then, it would undo that. So an attempt goes out under a
// stamp, and a leader takes it only in the term that it was sent for, and not behind a
// later attempt of the same sender. A Commit goes by the answer to its last attempt alone:
// no earlier one can be taken any more when it returns. What an earlier leader has taken and
// not committed is Raft's to drop.

// stamp says by whom, when and for which term a proposal was sent. Zero: by a node of an
// earlier version.
type stamp struct {
	term   uint64 // of the group's leader; 0: the sender does not know
	life   uint64 // of the sender's process
	number uint64 // higher than those of all attempts that it is to overtake
}

// errLate: a proposal was overtaken by another attempt, or by a change of leaders.
var errLate = fmt.Errorf("%w: the write was sent again meanwhile, or for an earlier leader", model.ErrUnavailable)

// fence is what a leader remembers of the attempts that it has taken.
type fence struct {
	sync.Mutex
	term   uint64
	newest map[uint64]uint64 // life -> number
}

// admitsLocked tells whether a proposal may be taken in a term in which this node leads.
func (f *fence) admitsLocked(s stamp, term uint64) bool {
	if s.life == 0 {
		return true
	}
	if s.term != 0 && s.term != term {
		return false
	}
	if f.term != term {
		f.term, f.newest = term, map[uint64]uint64{}
	}
	if s.number < f.newest[s.life] {
		return false
	}
	f.newest[s.life] = s.number
	return true
}

// numbers are those of a node's attempts. They rise only when something is sent again, so
// that what is sent for the first time, by whatever way, overtakes nothing.
type numbers struct{ last atomic.Uint64 }

// above returns the newest number if it is higher than one, or else makes the next.
func (x *numbers) above(one uint64) uint64 {
	for {
		now := x.last.Load()
		if now > one {
			return now
		}
		if x.last.CompareAndSwap(now, one+1) {
			return one + 1
		}
	}
}

// put encodes a proposal behind its stamp.
func (p *proposal) put(dst []byte) []byte {
	return append(putUvarints(room(dst, len(p.op)+32), p.stamp.term, p.stamp.life, p.stamp.number), p.op...)
}

// stamped decodes what put has encoded.
func stamped(data []byte) (s stamp, op []byte, err error) {
	d := &decoder{b: data}
	s = stamp{d.uvarint(), d.uvarint(), d.uvarint()}
	if d.bad {
		return stamp{}, nil, errMessage
	}
	return s, d.b, nil
}
