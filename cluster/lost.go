package cluster

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// A shard whose manifest or table was damaged begins empty, while its log goes on
// behind what the manifest covered; and a log that has lost its beginning leaves any
// group's state behind. Its vote must not change: the end of its log becomes a floor (see
// reassure). Then the log is dropped, so that Raft brings the leader's entries or state.
// Until that is here reads of it are answered by other nodes.

// dropLost finds such shards and prepares them. The floors are durable first; done
// twice it changes nothing.
func (n *Node) dropLost() error {
	log := n.replicas.Log()
	floors, lost := maps.Clone(n.identity.get().Floors), maps.Clone(n.identity.get().Lost)
	found := map[wal.StreamID]uint64{} // and to where its state goes
	for id := range n.allGroups() {
		stream, m := wal.StreamID(id), n.machine(id)
		base := log.Base(stream)
		state := n.identity.get().Groups[id]
		at, _ := m.mark()
		if base <= at.Applied || state == leaving || state == "" { // or its log was about to go
			continue
		}
		t, err := tailOf(log, id, m, nil, 0)
		if err != nil {
			return err
		}
		end := t.end
		if log.Last(stream) == base { // the term of its last entry is not known any more
			end = place{t.term, base}
		}
		if floors == nil {
			floors = map[uint64]place{}
		}
		if lost == nil {
			lost = map[uint64]uint64{}
		}
		if f, ok := floors[id]; !ok || f.before(end) {
			floors[id] = end
		}
		lost[id] = base
		found[stream] = at.Applied
	}
	if len(found) == 0 {
		return nil
	}
	if err := n.identity.change(func(s *self) { s.Floors, s.Lost = floors, lost }); err != nil {
		return err
	}
	for stream, applied := range found {
		n.opts.Logger.Error("cluster: lost here, to be fetched from another node", "group", groupName(uint64(stream)))
		if err := log.Reset(stream, applied); err != nil {
			return err
		}
	}
	return nil
}

// anyLost is the answer to whether this node is ready.
func (n *Node) anyLost() error {
	for id, until := range n.identity.get().Lost {
		if g := n.group(id); g != nil && g.fsm.consumed() < until {
			return fmt.Errorf("%w: %s is being fetched from another node", model.ErrUnavailable, groupName(id))
		}
	}
	return nil
}

// found forgets the lost shards that have been filled.
func (n *Node) found() error {
	lost := n.identity.get().Lost
	left := map[uint64]uint64{}
	for id, until := range lost {
		if g := n.group(id); g == nil {
			continue // it is no longer here
		} else if g.fsm.consumed() < until {
			left[id] = until
		} else {
			n.metrics.repairs.Inc()
		}
	}
	if len(left) == len(lost) {
		return nil
	}
	return n.identity.change(func(s *self) { s.Lost = left })
}

// appendTerm encodes a term as Raft's stable values have it here.
func appendTerm(term uint64) []byte { return binary.LittleEndian.AppendUint64(nil, term) }
