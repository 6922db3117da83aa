package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/time/rate"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// metaStream is the log stream, and the number, of the metadata's group.
const metaStream wal.StreamID = 1 << 16

// Node is a member of a cluster: the engine's Committer.
type Node struct {
	opts       Options
	name       string
	leaders    leaders
	selections *opened[*selection]
	served     *opened[*servedFeed]
	feeds      openFeeds             // of subscribers here
	detoured   atomic.Pointer[[]int] // shards here whose feeds come from elsewhere
	asked      atomic.Pointer[Answerer]
	worker     atomic.Pointer[model.FragmentFunc]
	works      *opened[*work]
	cmap       atomic.Pointer[clusterMap]
	mapped     *signal // the map has changed
	beat       *beat
	reach      *reach
	life       uint64                 // of this start: what Sync has brought about ends with it
	hostSaw    uint64                 // of mapped; host's own
	gone       atomic.Bool            // the map says that this node was removed
	waits      atomic.Pointer[string] // what the start waits for; see waitsFor
	addr       string                 // at which the others reach this node
	book       *book
	raftID     raft.ServerID
	identity   *identity
	replicas   *engine.Replicas
	listener   net.Listener

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once

	metrics *metrics
	fetches *fetches
	buffers buffers
	refused *rate.Limiter // of warnings: a stranger tries again twice a second
	shut    *rate.Limiter // of warnings of nodes that refuse this one

	started       atomic.Bool // all replicas run that did before
	draining      atomic.Bool
	hosting       sync.Mutex     // held by the one that starts or stops a group
	metaMarking   sync.Mutex     // held by the one that writes the metadata's cut
	queue         chan *proposal // for groups that this node leads
	numbers       numbers
	announcements *announcements

	mu struct {
		sync.Mutex
		links  map[string]*link
		bulks  map[string]*link  // for what is large, so that it keeps nothing else waiting
		groups map[uint64]*group // those of which a replica runs here; nil until they have started
		order  []*group          // shards, then metadata; replaced, never changed
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
	n := &Node{opts: *o, replicas: r, queue: make(chan *proposal, maxProposals), announcements: newAnnouncements()}
	n.selections = newOpened("selections", maxSelections, (*selection).close)
	n.served = newOpened("feeds", maxServedFeeds, (*servedFeed).close)
	n.works = newOpened("requests to work", maxWorks, (*work).close)
	n.opts.EnsureDefaults()
	if err := n.opts.Validate(); err != nil {
		return nil, err
	}
	n.life, n.reach, n.beat = rand.Uint64()|1, newReach(), newBeat(n.opts.Heartbeat/beatsIn)
	n.name, n.addr, n.book = n.opts.Name, n.opts.Advertise, newBook(n.opts.Peers)
	n.mu.links, n.mu.bulks, n.mapped = map[string]*link{}, map[string]*link{}, newSignal()
	n.mu.lent, n.refused, n.shut = map[uint64]*lent{}, rate.NewLimiter(rate.Every(time.Minute), 4), rate.NewLimiter(rate.Every(time.Minute), 4)
	n.metrics, n.fetches = newMetrics(), newFetches(n.opts.FetchRate)
	n.detoured.Store(&[]int{})
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
	if err := n.mayGrow(ctx); err != nil {
		return nil, err
	}
	if err := n.adoptSingle(); err != nil {
		return nil, err
	}
	if n.listener, err = n.opts.Network.Listen(n.opts.Listen); err != nil {
		return nil, fmt.Errorf("cluster-listen: %w", err)
	}
	n.wg.Go(func() { n.accept(n.ctx, n.listener) })
	if err := n.form(ctx); err != nil {
		return nil, err
	}
	n.relink() // with the cluster's id
	for name, addr := range n.identity.get().Addresses {
		n.book.list(name, addr)
	}
	changed, stop := n.replicas.WatchRecords(mapPrefix)
	err = n.loadMap()
	n.wg.Go(func() { n.watchMap(changed, stop) })
	if err != nil {
		return nil, err
	}
	if err := n.reassure(ctx); err != nil {
		return nil, err
	}
	if err := n.dropLost(); err != nil {
		return nil, err
	}
	if err := n.grow(ctx); err != nil {
		return nil, err
	}
	if err := n.startGroups(); err != nil {
		return nil, err
	}
	if err := n.metrics.register(n.opts.Registerer); err != nil {
		return nil, err
	}
	n.started.Store(true)
	for _, run := range []func(){n.climb, n.repairs, n.rounds, n.watchDisk, n.balance, n.hearken, n.host, n.coordinate, n.feel, n.detours} {
		n.wg.Go(run)
	}
	n.wg.Go(func() { n.announcements.run(n.ctx) })
	return n, nil
}

// group returns a group by number; nil while this node has no replica of it.
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

// link returns the link to a node, or to an address, which it makes if there is none.
func (n *Node) link(to string) *link { return n.linkIn(n.mu.links, to, false) }

// bulk is link's second connection.
func (n *Node) bulk(to string) *link { return n.linkIn(n.mu.bulks, to, true) }

func (n *Node) linkIn(links map[string]*link, to string, bulk bool) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := links[to]
	if l == nil {
		l = newLink(n, to, bulk)
		links[to] = l
		if n.ctx.Err() == nil {
			n.wg.Go(func() { l.run(n.ctx) })
		} else {
			close(l.tried)
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
	if g := n.group(uint64(shard)); g != nil {
		if err := g.flush(ctx); err != nil {
			return err
		}
	}
	if shard == n.replicas.Len()-1 {
		return n.meta().flush(ctx)
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
		n.hosting.Lock() // from here on no group starts
		order := n.ordered()
		n.hosting.Unlock()
		var futures []raft.Future
		for _, g := range order {
			futures = append(futures, g.raft.Shutdown())
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

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
