package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
)

// Status describes the cluster as this node sees it. Times are in seconds.
type Status struct {
	Node      string        `json:"node"`
	Cluster   string        `json:"cluster"`
	Staleness float64       `json:"stalenessSeconds"`
	Peers     []PeerStatus  `json:"peers"`
	Groups    []GroupStatus `json:"groups"`
}

// PeerStatus describes another node.
type PeerStatus struct {
	Name      string `json:"name"`
	Address   string `json:"address"`
	Connected bool   `json:"connected"`
}

// GroupStatus describes one group; Lag is in entries.
type GroupStatus struct {
	Group     string   `json:"group"`
	Leader    string   `json:"leader"` // empty: none is known
	Leads     bool     `json:"leads"`
	Term      uint64   `json:"term"`
	Last      uint64   `json:"lastIndex"`
	Commit    uint64   `json:"commitIndex"`
	Applied   uint64   `json:"appliedIndex"`
	Flushed   uint64   `json:"flushedIndex"`
	Staleness float64  `json:"stalenessSeconds"`
	Members   []Member `json:"members"`
}

// Member of a group.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// Status returns what this node knows.
func (n *Node) Status() Status {
	me := n.identity.get()
	s := Status{Node: me.Name, Cluster: me.Cluster, Staleness: n.Staleness().Seconds()}
	for _, name := range slices.Sorted(maps.Keys(n.opts.Peers)) {
		if name == me.Name {
			continue
		}
		addr := n.opts.Peers[name]
		s.Peers = append(s.Peers, PeerStatus{Name: name, Address: addr, Connected: n.link(addr).up()})
	}
	now := time.Now()
	for _, g := range n.ordered() {
		s.Groups = append(s.Groups, g.status(now))
	}
	return s
}

func (g *group) name() string { return groupName(g.id) }

func groupName(id uint64) string {
	if id == uint64(metaStream) {
		return "metadata"
	}
	return fmt.Sprintf("shard %d", id)
}

func (g *group) status(now time.Time) GroupStatus {
	_, leader := g.raft.LeaderWithID()
	at, _ := g.machine.mark()
	s := GroupStatus{Group: g.name(), Leader: string(leader), Leads: g.leads(), Term: g.raft.CurrentTerm(), Last: g.raft.LastIndex(),
		Commit: g.raft.CommitIndex(), Applied: g.fsm.consumed(), Flushed: at.Applied, Staleness: g.staleness(now).Seconds()}
	if f := g.raft.GetConfiguration(); f.Error() == nil {
		for _, m := range f.Configuration().Servers {
			s.Members = append(s.Members, Member{ID: string(m.ID), Address: string(m.Address), Voter: m.Suffrage == raft.Voter})
		}
	}
	return s
}

// readyAge is how old a node's data may be for it to count as ready.
const readyAge = 5 * time.Second

// Ready returns nil when every group with a replica here has a leader that this node is
// not far behind, and the node has the replicas that it should.
func (n *Node) Ready() error {
	if err := n.anyLost(); err != nil {
		return err
	}
	if n.gone.Load() {
		return fmt.Errorf("%w: this node was removed from the cluster", model.ErrUnavailable)
	}
	now := time.Now()
	for _, g := range n.serving() {
		if addr, _ := g.raft.LeaderWithID(); addr == "" {
			return fmt.Errorf("%w: %s has no leader", model.ErrUnavailable, g.name())
		}
		if age := g.staleness(now); age > readyAge {
			return fmt.Errorf("%w: %s is behind its leader", model.ErrUnavailable, g.name())
		}
	}
	m := n.currentMap()
	for i := range m.shards {
		if m.shards[i].on(n.name) && !n.holdsShard(i) {
			return fmt.Errorf("%w: the replica of shard %d is not complete yet", model.ErrUnavailable, i)
		}
	}
	return nil
}

// Drain hands the leadership of every group to other nodes, as far as they take it
// before ctx ends, and refuses to get any.
func (n *Node) Drain(ctx context.Context) {
	n.draining.Store(true)
	for _, g := range n.ordered() {
		if ctx.Err() != nil || !g.leads() {
			continue
		}
		f := g.raft.LeadershipTransfer()
		done := make(chan error, 1)
		go func() { done <- f.Error() }()
		select {
		case err := <-done:
			if err != nil {
				n.opts.Logger.Info("cluster: leadership not handed over", "group", g.name(), "err", err)
			}
		case <-ctx.Done():
		}
	}
}

// Hash is a hash of everything that a replica holds of a shard above the retention
// cut, in hex. Replicas at the same index have the same.
type Hash struct {
	Shard int    `json:"shard"`
	Index uint64 `json:"index"`
	Hash  string `json:"hash"`
}

// Hashes reads all shards that lie here, one after another.
func (n *Node) Hashes(ctx context.Context) ([]Hash, error) {
	out := []Hash{}
	for i := range n.replicas.Len() {
		if !n.holdsShard(i) {
			continue
		}
		index, sum, err := n.replicas.Shard(i).Hash(ctx)
		if err != nil {
			return nil, err
		}
		if n.holdsShard(i) {
			out = append(out, Hash{Shard: i, Index: index, Hash: fmt.Sprintf("%016x", sum)})
		}
	}
	return out, nil
}
