package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/shard/model"
)

// Status describes the cluster as this node sees it. Times are in seconds.
type Status struct {
	Node      string        `json:"node"`
	Cluster   string        `json:"cluster"`
	Staleness float64       `json:"stalenessSeconds"` // of what lies on this node
	Nodes     []NodeStatus  `json:"nodes"`
	Peers     []PeerStatus  `json:"peers"`
	Groups    []GroupStatus `json:"groups"`
	Plan      *Plan         `json:"plan,omitempty"` // the last one
	Moves     []Move        `json:"moves,omitempty"`
}

// NodeStatus describes a node of the map.
type NodeStatus struct {
	Name     string    `json:"name"`
	Address  string    `json:"address"`
	HTTP     string    `json:"http,omitempty"`
	State    NodeState `json:"state"`
	Answers  bool      `json:"answers"`
	Waits    string    `json:"waits,omitempty"` // for what its start does
	Replicas int       `json:"replicas"`        // shards that the map has there
	Leads    int       `json:"leads"`           // groups
	Bytes    int64     `json:"bytes"`           // of its replicas, on disk and in memory
}

// PeerStatus describes another node.
type PeerStatus struct {
	Name      string `json:"name"`
	Address   string `json:"address"`
	Connected bool   `json:"connected"`
}

// GroupStatus describes one group, as the node From sees it: its leader if that answers.
// Without From nobody who answers has a replica, and all there is is the map's list of members.
type GroupStatus struct {
	Group     string   `json:"group"`
	From      string   `json:"from"`
	Leader    string   `json:"leader"` // empty: none is known
	Leads     bool     `json:"leads"`  // the node that was asked does
	Term      uint64   `json:"term"`
	Last      uint64   `json:"lastIndex"`
	Commit    uint64   `json:"commitIndex"`
	Applied   uint64   `json:"appliedIndex"`
	Flushed   uint64   `json:"flushedIndex"`
	Bytes     int64    `json:"bytes"`
	Staleness float64  `json:"stalenessSeconds"`
	Members   []Member `json:"members"`
}

// Member of a group; what the node itself has not said is missing.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
	Answers bool   `json:"answers"`
	Applied uint64 `json:"appliedIndex"`
	Lag     uint64 `json:"lag"` // entries behind what is committed
	Bytes   int64  `json:"bytes"`
}

// statusWait is how long the other nodes may take to answer for a status.
const statusWait = 500 * time.Millisecond

// Status returns what this node knows, and what the others say within statusWait.
func (n *Node) Status(ctx context.Context) Status {
	me, m := n.identity.get(), n.currentMap()
	s := Status{Node: me.Name, Cluster: me.Cluster, Staleness: n.Staleness().Seconds(), Plan: m.plan, Moves: m.moves}
	said, waits := n.askStatuses(ctx, m.members(stateMember, stateDraining))
	for id := range n.allGroups() {
		g := joinStatuses(groupName(id), said, n.name)
		if g == nil {
			g = m.groupStatus(id)
		}
		s.Groups = append(s.Groups, *g)
	}
	for _, name := range m.members(stateMember, stateDraining) {
		x := n.nodeStatus(m, name, said)
		x.Waits = waits[name]
		s.Nodes = append(s.Nodes, x)
		if name != me.Name {
			at := append(n.book.of(name), "")[0]
			s.Peers = append(s.Peers, PeerStatus{Name: name, Address: at, Connected: n.link(name).up()})
		}
	}
	return s
}

// groupStatus is what the map says of a shard of which nobody who answers has a replica.
func (m *clusterMap) groupStatus(id uint64) *GroupStatus {
	g := &GroupStatus{Group: groupName(id)}
	if id < uint64(len(m.shards)) {
		for _, name := range m.shards[id].Replicas {
			g.Members = append(g.Members, Member{ID: string(serverID(name, m.nodes[name].Incarnation)), Address: name, Voter: true})
		}
	}
	return g
}

func (n *Node) nodeStatus(m *clusterMap, name string, said map[string][]GroupStatus) NodeStatus {
	x := m.nodes[name]
	groups, answers := said[name]
	s := NodeStatus{Name: name, Address: x.Address, HTTP: x.HTTP, State: x.State, Answers: answers}
	for i := range m.shards {
		if m.shards[i].on(name) {
			s.Replicas++
		}
	}
	for i := range groups {
		s.Bytes += groups[i].Bytes
		if groups[i].Leads {
			s.Leads++
		}
	}
	return s
}

// askStatuses asks nodes, this one too, how their replicas are, and those that can't tell what
// their start waits for.
func (n *Node) askStatuses(ctx context.Context, names []string) (said map[string][]GroupStatus, waits map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	var mu sync.Mutex
	said, waits = map[string][]GroupStatus{}, map[string]string{}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			b, err := n.call(ctx, name, kindStatus, 0, nil)
			var groups []GroupStatus
			if err == nil {
				err = json.Unmarshal(b, &groups)
			}
			var there helloAnswer
			if err != nil {
				there, _ = n.hello(ctx, name) // or it is down
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				said[name] = groups
			} else if there.Waits != "" {
				waits[name] = there.Waits
			}
		})
	}
	wg.Wait()
	return said, waits
}

// answerStatus says how the replicas here are.
func (n *Node) answerStatus() ([]byte, error) {
	now := time.Now()
	groups := []GroupStatus{}
	for _, g := range n.ordered() {
		groups = append(groups, g.status(now))
	}
	return json.Marshal(groups)
}

// joinStatuses makes one status of what the nodes say of a group; nil if none knows it.
func joinStatuses(name string, said map[string][]GroupStatus, asked string) *GroupStatus {
	by := map[string]*GroupStatus{}
	var best *GroupStatus
	leads := false
	for _, from := range slices.Sorted(maps.Keys(said)) {
		for i := range said[from] {
			g := &said[from][i]
			if g.Group != name {
				continue
			}
			by[from] = g
			leads = leads || from == asked && g.Leads
			if best == nil || g.Leads && (!best.Leads || g.Term > best.Term) || !best.Leads && from == asked {
				best = g
			}
		}
	}
	if best == nil {
		return nil
	}
	out := *best
	out.Leads = leads
	for i := range out.Members {
		x := &out.Members[i]
		if g := by[x.Address]; g != nil {
			x.Answers, x.Applied, x.Bytes = true, g.Applied, g.Bytes
			x.Lag = out.Commit - min(out.Commit, g.Applied)
		}
	}
	return &out
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
	s := GroupStatus{Group: g.name(), From: g.node.name, Leader: string(leader), Leads: g.leads(), Term: g.raft.CurrentTerm(), Last: g.raft.LastIndex(),
		Commit: g.raft.CommitIndex(), Applied: g.fsm.consumed(), Flushed: at.Applied, Staleness: g.staleness(now).Seconds()}
	if g.id != uint64(metaStream) {
		s.Bytes = g.node.replicas.Shard(int(g.id)).Bytes()
	}
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
// not far behind, the map is written down, and the node has the replicas and votes that it
// should: until then another node that stopped could take the majority with it.
func (n *Node) Ready() error {
	if err := n.anyLost(); err != nil {
		return err
	}
	if n.removed() {
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
	if !m.seeded { // nor can anything be asked of the cluster's map before
		return errForming
	}
	for i := range m.shards {
		if m.shards[i].on(n.name) && !(n.holdsShard(i) && n.voting(uint64(i))) {
			return fmt.Errorf("%w: the replica of shard %d is not complete yet", model.ErrUnavailable, i)
		}
	}
	if n.lacksMetaVote(m) {
		return fmt.Errorf("%w: the replica of the metadata is not complete yet", model.ErrUnavailable)
	}
	return nil
}

// voting tells whether this node has a vote in a group.
func (n *Node) voting(id uint64) bool {
	g := n.group(id)
	return g != nil && g.votes(n.raftID)
}

// lacksMetaVote tells whether this node is to get a vote of the metadata: it has none, and
// of those that have one too few are nodes as the map knows them.
func (n *Node) lacksMetaVote(m *clusterMap) bool {
	if m.nodes[n.name].State != stateMember || n.voting(uint64(metaStream)) {
		return false
	}
	members, voters := m.members(stateMember), 0
	for _, name := range members {
		if n.meta().votes(serverID(name, m.nodes[name].Incarnation)) {
			voters++
		}
	}
	return voters < metaVoters(len(members))
}

// Drain hands the leadership of every group to other nodes, as far as they take it
// before ctx ends, and refuses to get any.
func (n *Node) Drain(ctx context.Context) {
	n.draining.Store(true)
	n.shed(ctx)
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
