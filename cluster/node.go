package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal"
)

// metaStream is the log stream, and the number, of the metadata's group.
const metaStream wal.StreamID = 1 << 16

// Node is a member of a cluster: the engine's Committer.
type Node struct {
	opts     Options
	addr     string
	raftID   raft.ServerID
	identity *identity
	replicas *engine.Replicas
	listener net.Listener

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	metrics *metrics
	fetches *fetches

	draining atomic.Bool
	queue    chan *proposal // for groups that this node leads

	mu struct {
		sync.Mutex
		links  map[string]*link
		groups map[uint64]*group // nil until they have started
		order  []*group          // shards, then metadata
		tails  *tails            // while this node doubts its log

		lent     map[uint64]*lent // offers to nodes that repair
		nextLent uint64
	}
}

var _ engine.Committer = (*Node)(nil)

// Start makes this process a node: it returns once the cluster has formed and all
// groups run, which may take as long as the other nodes do. Pass it, bound to its
// options, as the engine's Replicate.
func Start(ctx context.Context, o *Options, r *engine.Replicas) (_ *Node, err error) {
	n := &Node{opts: *o, replicas: r, queue: make(chan *proposal, maxProposals)}
	n.opts.EnsureDefaults()
	if err := n.opts.Validate(); err != nil {
		return nil, err
	}
	n.addr = n.opts.Peers[n.opts.Name]
	n.mu.links, n.mu.lent = map[string]*link{}, map[uint64]*lent{}
	n.metrics, n.fetches = newMetrics(), newFetches(n.opts.FetchRate)
	if n.identity, err = loadIdentity(&n.opts); err != nil {
		return nil, err
	}
	me := n.identity.get()
	n.raftID = serverID(me.Name, me.Incarnation)
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.listener, err = n.opts.Network.Listen(n.opts.Listen); err != nil {
		return nil, err
	}
	n.wg.Go(func() { n.accept(n.ctx, n.listener) })
	if err := n.form(ctx); err != nil {
		return nil, err
	}
	n.relink() // with the cluster's id
	if err := n.reassure(ctx); err != nil {
		return nil, err
	}
	if err := n.dropLost(); err != nil {
		return nil, err
	}
	if err := n.startGroups(); err != nil {
		return nil, err
	}
	if err := n.metrics.register(n.opts.Registerer); err != nil {
		return nil, err
	}
	n.wg.Go(n.climb)
	n.wg.Go(n.repairs)
	n.wg.Go(n.rounds)
	n.wg.Go(n.watchDisk)
	n.wg.Go(n.balance)
	return n, nil
}

// startGroups brings up every group, the first time with the members that formed
// the cluster as its configuration.
func (n *Node) startGroups() error {
	me := n.identity.get()
	var first *raft.Configuration
	if !me.Started && !me.Joining {
		if last := n.replicas.Log().Last(0); last > 0 && n.notOurs() {
			return fmt.Errorf("%w: %s holds the data of a single node (its log reaches entry %d); start the cluster on new folders, and use export and import",
				ErrIdentity, n.opts.Dir, last)
		}
		first = &raft.Configuration{}
		for _, name := range slices.Sorted(maps.Keys(me.Members)) {
			first.Servers = append(first.Servers, raft.Server{Suffrage: raft.Voter,
				ID: serverID(name, me.Members[name]), Address: raft.ServerAddress(n.opts.Peers[name])})
		}
	}
	log := n.replicas.Log()
	groups := map[uint64]*group{}
	var order []*group
	for _, m := range n.machines() {
		g := newGroup(n, m.id, m.machine, log)
		if m.id == uint64(metaStream) {
			g.join = func(dst, op []byte) []byte { return append(dst, op...) }
		}
		if floor, ok := me.Floors[m.id]; ok {
			g.trans.floor.Store(&floor)
		}
		order = append(order, g)
	}
	for _, g := range order {
		if err := g.start(first, me.Joining && !me.Voter[g.id]); err != nil {
			n.setGroups(groups, order) // for Close
			return err
		}
		groups[g.id] = g
		go g.settle() // not waited for: Raft never answers what it holds when it is shut down
		n.wg.Go(g.greetTerms)
	}
	n.setGroups(groups, order)
	switch {
	case me.Joining:
		n.wg.Go(n.rejoin)
		return nil
	case me.Started:
		return nil
	}
	return n.identity.change(func(s *self) { s.Started = true })
}

// numbered is a machine and its group's number.
type numbered struct {
	id uint64
	machine
}

// machines makes what this node's groups replicate.
func (n *Node) machines() []numbered {
	var out []numbered
	for i := range n.replicas.Len() {
		id := uint64(i)
		out = append(out, numbered{id, &shardMachine{node: n, id: id, r: n.replicas.Shard(i)}})
	}
	return append(out, numbered{uint64(metaStream), &metaMachine{node: n, r: n.replicas}})
}

// notOurs tells whether the log has entries and no group of Raft's.
func (n *Node) notOurs() bool {
	_, voted := n.replicas.Log().Value(0, "CurrentTerm")
	return !voted
}

func (n *Node) setGroups(groups map[uint64]*group, order []*group) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.groups, n.mu.order = groups, order
}

// group returns a group by number; nil while it has not started.
func (n *Node) group(id uint64) *group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.groups[id]
}

func (n *Node) ordered() []*group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.order
}

// link returns the link to an address, which it makes if there is none.
func (n *Node) link(addr string) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.mu.links[addr]
	if l == nil {
		l = newLink(n, addr)
		n.mu.links[addr] = l
		if n.ctx.Err() == nil {
			n.wg.Go(func() { l.run(n.ctx) })
		}
	}
	return l
}

// relink ends the connections, so that new ones say what has become known.
func (n *Node) relink() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.mu.links {
		l.drop()
	}
}

func (n *Node) fail(err error) {
	if n.ctx.Err() == nil {
		n.replicas.Fail(fmt.Errorf("cluster: %w", err))
	}
}

// Flush implements engine.Committer.
func (n *Node) Flush(ctx context.Context, shard int) error {
	if err := n.group(uint64(shard)).flush(ctx); err != nil {
		return err
	}
	if shard == n.replicas.Len()-1 {
		return n.group(uint64(metaStream)).flush(ctx)
	}
	return nil
}

// Leads implements engine.Committer.
func (n *Node) Leads(shard int) bool {
	g := n.group(uint64(shard))
	return g != nil && g.leads()
}

// LeadsMetadata tells whether this node leads the metadata's group: of what one node
// shall do for all, it is the one.
func (n *Node) LeadsMetadata() bool {
	g := n.group(uint64(metaStream))
	return g != nil && g.leads()
}

// Close implements engine.Committer.
func (n *Node) Close() error {
	var err error
	n.once.Do(func() {
		n.cancel()
		var futures []raft.Future
		for _, g := range n.ordered() {
			if g.raft != nil {
				futures = append(futures, g.raft.Shutdown())
			}
		}
		for _, f := range futures {
			err = errors.Join(err, f.Error())
		}
		if n.listener != nil {
			err = errors.Join(err, n.listener.Close())
		}
		n.wg.Wait()
		n.takeBackAll()
		n.metrics.unregister(n.opts.Registerer)
	})
	return err
}

const balanceEvery = time.Second

// balance hands the leadership of groups to the nodes that should have it, one at a
// time, once they are there and have caught up, and looks after candidates.
func (n *Node) balance() {
	tick := time.NewTicker(balanceEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
		for _, g := range n.ordered() {
			g.unstick()
		}
		for i, g := range n.ordered() {
			if n.handOver(i, g) {
				break
			}
		}
	}
}

// handOver transfers a group that this node leads to the member whose turn it is;
// false if there is nothing to do.
func (n *Node) handOver(i int, g *group) bool {
	if !g.leads() || n.draining.Load() {
		return false
	}
	voters := g.voters()
	if len(voters) == 0 {
		return false
	}
	want := voters[i%len(voters)]
	if want.ID == n.raftID {
		return false
	}
	ctx, cancel := context.WithTimeout(n.ctx, balanceEvery)
	defer cancel()
	const near = 8 // entries
	if t, err := n.askTerms(ctx, string(want.Address), g.id); err != nil || t[0].draining || t[0].consumed+near < g.fsm.consumed() {
		return false
	}
	if err := g.transfer(want); err != nil {
		n.opts.Logger.Debug("cluster: leadership not transferred", "group", g.id, "to", want.ID, "err", err)
	}
	return true
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
