package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/strandline-db/strandline/shard/model"
)

// The cluster's map is what all nodes know of it: records of the metadata's group, in
// JSON, below mapPrefix.
//
//	cluster/nodes/NAME   NodeRecord
//	cluster/shards/NNNN  ShardRecord
//	cluster/plan         Plan
//	cluster/moves/NNNN   Move, of the plan; the number is its place in it
const (
	mapPrefix    = "cluster/"
	nodePrefix   = mapPrefix + "nodes/"
	shardPrefix  = mapPrefix + "shards/"
	planKey      = mapPrefix + "plan"
	movePrefix   = mapPrefix + "moves/"
	numberFormat = "%04d"
)

// NodeState says what is meant to become of a node.
type NodeState string

// States of a node.
const (
	stateMember   NodeState = "member"
	stateDraining NodeState = "draining" // its replicas are to move off it
	stateRemoved  NodeState = "removed"
)

// NodeRecord is what the map says of a node.
type NodeRecord struct {
	Name        string    `json:"name"`
	Incarnation string    `json:"incarnation"`
	Address     string    `json:"address"`
	HTTP        string    `json:"http,omitempty"`
	State       NodeState `json:"state"`
	rev         uint64
}

// ShardRecord says where a shard lies: on Replicas, by name, and on Learner before it
// becomes one of them. Its leader should be Leader, or whom balance chooses.
type ShardRecord struct {
	Replicas []string `json:"replicas"`
	Learner  string   `json:"learner,omitempty"`
	Leader   string   `json:"leader,omitempty"` // that someone asked for
	rev      uint64
}

func (s *ShardRecord) on(name string) bool { return slices.Contains(s.Replicas, name) }

// clusterMap is the map at one moment, immutable.
type clusterMap struct {
	seeded bool // false: derived from who formed the cluster
	nodes  map[string]NodeRecord
	shards []ShardRecord
	plan   *Plan
	moves  []Move // of plan
}

// members returns the names of the nodes that are in one of the states, sorted.
func (m *clusterMap) members(states ...NodeState) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.nodes)) {
		if slices.Contains(states, m.nodes[name].State) {
			out = append(out, name)
		}
	}
	return out
}

func shardKey(i int) string { return fmt.Sprintf(shardPrefix+numberFormat, i) }
func moveKey(i int) string  { return fmt.Sprintf(movePrefix+numberFormat, i) }

// readMap makes a map of records.
func readMap(records []model.Record, shards int) (*clusterMap, error) {
	m := &clusterMap{nodes: map[string]NodeRecord{}, shards: make([]ShardRecord, shards)}
	for i := range records {
		r := &records[i]
		if err := m.add(r); err != nil {
			return nil, fmt.Errorf("record %q: %w", r.Key, err)
		}
	}
	return m, nil
}

func (m *clusterMap) add(r *model.Record) error {
	number := func(prefix string) (i int, err error) {
		_, err = fmt.Sscanf(strings.TrimPrefix(r.Key, prefix), "%d", &i)
		return i, err
	}
	switch {
	case strings.HasPrefix(r.Key, nodePrefix):
		var x NodeRecord
		if err := json.Unmarshal(r.Value, &x); err != nil {
			return err
		}
		x.rev = r.Rev
		m.nodes[x.Name] = x
	case strings.HasPrefix(r.Key, shardPrefix):
		i, err := number(shardPrefix)
		if err != nil || i < 0 || i >= len(m.shards) {
			return fmt.Errorf("there is no such shard: %w", err)
		}
		m.seeded, m.shards[i].rev = true, r.Rev
		return json.Unmarshal(r.Value, &m.shards[i])
	case r.Key == planKey:
		m.plan = &Plan{rev: r.Rev}
		return json.Unmarshal(r.Value, m.plan)
	case strings.HasPrefix(r.Key, movePrefix):
		x := Move{rev: r.Rev}
		if err := json.Unmarshal(r.Value, &x); err != nil {
			return err
		}
		m.moves = append(m.moves, x) // records come in order of their keys
	}
	return nil
}

// put adds the change of a record to c, on condition that it still has the revision.
func put(c *model.RecordChange, key string, rev uint64, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.Guards = append(c.Guards, model.Guard{Key: key, Rev: rev})
	c.Changes = append(c.Changes, model.Change{Key: key, Value: b})
	return nil
}

// currentMap returns the map as this node knows it. Before anyone has written it down,
// it follows from who formed the cluster.
func (n *Node) currentMap() *clusterMap { return n.cmap.Load() }

// loadMap reads the map anew.
func (n *Node) loadMap() error {
	m, err := readMap(n.replicas.Records(mapPrefix), n.replicas.Len())
	if err != nil {
		return err
	}
	if !m.seeded {
		me := n.identity.get()
		names := slices.Sorted(maps.Keys(me.Members))
		on := names
		if me.Grown && me.founded() && len(n.opts.Peers) <= replication { // those that are to come
			on = slices.Sorted(maps.Keys(n.opts.Peers))
		}
		for i, replicas := range rendezvous(on, len(m.shards)) {
			m.shards[i] = ShardRecord{Replicas: replicas}
		}
		for _, name := range names {
			if _, known := m.nodes[name]; !known {
				m.nodes[name] = NodeRecord{Name: name, Incarnation: me.Members[name], State: stateMember}
			}
		}
	}
	for name, x := range m.nodes {
		if x.Address != "" {
			n.book.list(name, x.Address)
		}
	}
	n.cmap.Store(m)
	n.mapped.raise()
	return nil
}

// watchMap is the goroutine that follows the map.
func (n *Node) watchMap(changed <-chan struct{}, stop func()) {
	defer stop()
	for {
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
		if err := n.loadMap(); err != nil {
			n.fail(fmt.Errorf("the cluster's map: %w", err))
			return
		}
	}
}
