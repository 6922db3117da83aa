package cluster

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// A shard whose manifest or table was damaged begins empty, while its log goes on
// behind what the manifest covered. Its vote must not change: the end of its log
// becomes a floor (see reassure). Then the log is dropped, so that Raft installs the
// leader's state. Until that is here reads of it are answered by other nodes.

// dropLost finds such shards and prepares them. The floors are durable first; done
// twice it changes nothing.
func (n *Node) dropLost() error {
	log := n.replicas.Log()
	floors, lost := maps.Clone(n.identity.get().Floors), maps.Clone(n.identity.get().Lost)
	var found []wal.StreamID
	for i := range n.replicas.Len() {
		id, stream := uint64(i), wal.StreamID(i)
		base := log.Base(stream)
		state := n.identity.get().Groups[id]
		if base <= n.replicas.Shard(i).Manifest().Applied || state == leaving || state == "" { // or its log was about to go
			continue
		}
		t, err := tailOf(log, id, &shardMachine{node: n, id: id, r: n.replicas.Shard(i)})
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
		found = append(found, stream)
	}
	if len(found) == 0 {
		return nil
	}
	if err := n.identity.change(func(s *self) { s.Floors, s.Lost = floors, lost }); err != nil {
		return err
	}
	for _, stream := range found {
		n.opts.Logger.Error("cluster: a shard is lost here and will be fetched from another node", "shard", stream)
		if err := log.Reset(stream, 0); err != nil {
			return err
		}
	}
	return nil
}

// anyLost is the answer to whether this node is ready.
func (n *Node) anyLost() error {
	for id, until := range n.identity.get().Lost {
		if g := n.group(id); g != nil && g.fsm.consumed() < until {
			return fmt.Errorf("%w: shard %d is being fetched from another node", model.ErrUnavailable, id)
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
