package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// entriesAhead is how many entries of a group on their way to a majority may be.
const entriesAhead = 64

// group is this node's member of one Raft group.
type group struct {
	node    *Node
	ctx     context.Context // of the replica's life here
	cancel  context.CancelFunc
	ended   chan struct{} // closed when ctx is done, for Raft's futures
	id      uint64        // also the log's stream
	machine machine
	fsm     *fsm
	store   *logStore
	cached  *cachedStore // store, for Raft
	snaps   *snapshots
	trans   *transport
	raft    *raft.Raft
	started atomic.Pointer[raft.Raft] // raft, for what Raft calls while it starts
	marks   marks
	ahead   chan *entry                 // proposed, not yet settled
	join    func(dst, op []byte) []byte // how operations make an entry
	fence   fence
	torn    int // how often in a row unstick saw a candidate with a leader; its own
	handing struct {
		sync.Mutex
		not time.Time // before it leadership is not handed over
	}
	parting struct {
		sync.Mutex
		on bool // the replica gets no vote: it may be about to go
	}
}

// proposal is one operation on its way into the log. done is called once.
type proposal struct {
	g     *group
	stamp stamp
	op    []byte // its owner's, who may use it anew when the proposal has been overtaken
	done  func(index uint64, r engine.Result, err error)

	overtaken func() bool // by a later attempt, or nobody waits for it; nil for another node's
}

// entry is proposals in one log entry.
type entry struct {
	proposals []*proposal
	size      int // bytes of the proposals, roughly
	future    raft.ApplyFuture
	settled   func() // called when the proposals have been answered
}

func newGroup(n *Node, id uint64, m machine, log *wal.Log) *group {
	g := &group{node: n, id: id, machine: m, ahead: make(chan *entry, entriesAhead)}
	if n.opts.tap != nil {
		m = n.opts.tap.machine(id, m)
		g.machine = m
	}
	g.ctx, g.cancel = context.WithCancel(n.ctx)
	g.ended = make(chan struct{})
	context.AfterFunc(g.ctx, func() { close(g.ended) })
	g.fsm = newFSM(g.ctx, m, n.fail)
	g.fsm.marked = g.marked
	g.store = &logStore{log: log, id: wal.StreamID(id), fail: n.fail, tap: n.opts.tap, early: g.early, mark: m.mark}
	g.cached = newCachedStore(g.store, func() int { return cacheBytes / max(1, len(n.ordered())) })
	g.snaps = &snapshots{m: m, log: g.store}
	g.trans = &transport{node: n, ctx: g.ctx, group: id, rpcs: make(chan raft.RPC, rpcQueue), consumed: g.fsm.consumed, follows: g.follows, covers: g.covers, goOn: g.store.goOn, durable: g.store.late.wait,
		led: g.ledIndex, announce: g.announceOwn}
	g.join = engine.JoinPayload
	return g
}

// start brings Raft up, with its first configuration if it has none. A node that is
// becoming a member has none until a leader sends it.
func (g *group) start(first *raft.Configuration, joining bool) error {
	o := &g.node.opts
	c := raft.DefaultConfig()
	c.LocalID = g.node.raftID
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = o.Heartbeat, o.Heartbeat, o.Heartbeat
	c.CommitTimeout = 4 * o.Heartbeat // announcements are quicker
	c.BatchApplyCh = true
	c.NoSnapshotRestoreOnStart = true
	c.TrailingLogs = o.TrailingLogs
	c.ShutdownOnRemove = false    // its files are this node's to delete; see leave
	c.SnapshotThreshold = 1 << 62 // the engine says when
	c.SnapshotInterval = 24 * time.Hour
	c.NoLegacyTelemetry = true
	c.Logger = newRaftLog(o.Logger.With("group", g.id))
	has, err := raft.HasExistingState(g.store, g.store, g.snaps)
	if err != nil {
		return err
	}
	if !has && !joining {
		if first == nil {
			return fmt.Errorf("%w: the log of group %d is gone although the node has been a member: it must not vote again; remove it from the cluster and add it anew", ErrIdentity, g.id)
		}
		if err := raft.BootstrapCluster(c, g.store, g.store, g.snaps, g.trans, *first); err != nil {
			return err
		}
	}
	g.store.reading.Store(true)
	g.raft, err = raft.NewRaft(c, g.fsm, g.cached, g.store, g.snaps, g.trans)
	g.store.reading.Store(false)
	if err != nil {
		return err
	}
	g.started.Store(g.raft)
	return nil
}

// early tells, to Raft's own goroutine, whether these entries may go out to the followers
// before they are durable here: those of a leader that needs a follower's success, which
// lateWrites keeps back, for a majority. A change of the members may make it need none.
func (g *group) early(ls []*raft.Log) bool {
	r := g.started.Load()
	if r == nil || r.State() != raft.Leader || len(g.voters()) < 2 {
		return false
	}
	return !slices.ContainsFunc(ls, func(l *raft.Log) bool { return l.Type != raft.LogCommand })
}

// leads tells whether this node believes to lead the group, and can.
func (g *group) leads() bool { return g.raft.State() == raft.Leader && !g.node.stalled() }

// follows tells whether this node is a follower in this term.
func (g *group) follows(term uint64) bool {
	r := g.started.Load()
	return r != nil && r.State() == raft.Follower && r.CurrentTerm() == term
}

// covers answers a snapshot that says only what this replica's log has; nil if it says
// more. Raft itself would drop what the log has above it. Success means no more than that
// the entries up to it are here, which is true in any term.
func (g *group) covers(req *raft.InstallSnapshotRequest) *raft.InstallSnapshotResponse {
	if !g.store.has(req.LastLogIndex, req.LastLogTerm) {
		return nil
	}
	return &raft.InstallSnapshotResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: g.raft.CurrentTerm(), Success: true}
}

// unstick helps a candidate that believes to have a leader. A heartbeat, which is
// handled beside Raft's main goroutine, can set the leader just after that one has cleared
// it to stand for election. Nothing clears it again: the candidate, if its log is not the
// longest, loses every election and refuses everyone else its vote since it has a leader.
// Standing once more as if asked to clears it.
func (g *group) unstick() {
	if addr, _ := g.raft.LeaderWithID(); g.raft.State() != raft.Candidate || addr == "" {
		g.torn = 0
		return
	}
	if g.torn++; g.torn > 1 { // the first time it may be on its way to be a follower
		g.torn = 0
		g.trans.standNow()
	}
}

var errTransferred = fmt.Errorf("%w: a transfer of leadership has just failed", model.ErrUnavailable)

// transfer hands leadership to a voter. Raft's own transfer asks the goroutine that
// replicates to the voter to catch up, through a queue of one that it never empties when
// it gives up. A second request would wait for that goroutine, for ever if leadership is
// lost meanwhile, and this node would refuse all writes whenever it leads the group again.
// So after a failure there is none until that goroutine's request has ended too.
func (g *group) transfer(to raft.Server) error {
	g.handing.Lock()
	now := time.Now()
	refused := now.Before(g.handing.not)
	if !refused { // one that is refused does not put off the next
		g.handing.not = now.Add(appendWait + time.Second)
	}
	g.handing.Unlock()
	if refused {
		return errTransferred
	}
	if err := until(g, g.raft.LeadershipTransferToServer(to.ID, to.Address)).Error(); err != nil {
		return raftError(err)
	}
	g.handing.Lock()
	defer g.handing.Unlock()
	g.handing.not = time.Time{}
	return nil
}

// settle is the goroutine that answers entries in the order of the log.
func (g *group) settle() {
	defer g.abandon()
	for {
		select {
		case e := <-g.ahead:
			g.settleEntry(e)
		case <-g.ctx.Done():
			return
		}
	}
}

// abandon answers what still waits when the replica's life here has ended.
func (g *group) abandon() {
	for {
		select {
		case e := <-g.ahead:
			g.settleEntry(e)
		default:
			return
		}
	}
}

func (g *group) settleEntry(e *entry) {
	defer e.settled()
	if err := e.future.Error(); err != nil {
		e.fail(raftError(err))
		return
	}
	a, ok := e.future.Response().(applied)
	if !ok || a.err != nil {
		e.fail(errors.Join(model.ErrFailed, a.err))
		return
	}
	results, _ := a.result.([]engine.Result)
	for i, p := range e.proposals {
		var r engine.Result
		if i < len(results) {
			r = results[i]
		}
		p.done(e.future.Index(), r, nil)
	}
	g.node.announcements.add(g, place{a.term, e.future.Index()})
}

// ledIndex returns an index within which all lies that was acknowledged before the call, as far
// as this node can tell as the leader of a term: 0 if it is not, or if no entry of the term has
// come by, before which it does not know what earlier leaders have committed. That it leads is
// looked at last: what a later leader has committed is not to be told in this term's name.
func (g *group) ledIndex(term uint64) uint64 {
	r := g.started.Load()
	if r == nil || g.fsm.term() < term {
		return 0
	}
	index := r.CommitIndex()
	if !g.leads() || r.CurrentTerm() != term {
		return 0
	}
	return index
}

// raftError is Raft's error as ours. All of them may mean that the entry is in the
// log nevertheless; a retry is harmless.
func raftError(err error) error {
	return fmt.Errorf("%w: %w", model.ErrUnavailable, err)
}

// submit takes a proposal if this node leads.
func (g *group) submit(p *proposal) {
	if err := g.take(p); err != nil {
		p.done(0, engine.Result{}, err)
	}
}

// take puts a proposal into the queue, in which it stays behind those that came before it.
func (g *group) take(p *proposal) error {
	if !g.leads() {
		return errNotLeader
	}
	g.fence.Lock()
	defer g.fence.Unlock()
	term := g.raft.CurrentTerm()
	if !g.fence.admitsLocked(p.stamp, term) {
		return errLate
	}
	p.g, p.stamp.term = g, term
	select {
	case g.node.queue <- p:
		return nil
	default:
		return fmt.Errorf("%w: %d writes wait", model.ErrOverloaded, maxProposals)
	}
}

var errNotLeader = fmt.Errorf("%w: this node does not lead the group", model.ErrUnavailable)

// proposalFor is another node's proposal.
func proposalFor(s stamp, op []byte, respond func([]byte, error)) *proposal {
	return &proposal{stamp: s, op: op, done: func(index uint64, r engine.Result, err error) {
		if err != nil {
			respond(nil, err)
			return
		}
		respond(putOutcome(nil, index, &r, s.life != 0), nil)
	}}
}

// leader returns who leads the group as Raft here has heard; "" if it has not.
func (g *group) leader() string {
	leader, _ := g.raft.LeaderWithID()
	return string(leader)
}

// send brings a proposal to the group's leader, wherever it is.
func (g *group) send(p *proposal) {
	l := g.lead()
	if g.leads() {
		p.op = bytes.Clone(p.op) // its owner may go on without this attempt's answer
		p.stamp.term = l.term
		g.submit(p)
		return
	}
	if l.name == "" || l.name == g.node.name {
		p.done(0, engine.Result{}, fmt.Errorf("%w: group %d has no leader", model.ErrUnavailable, g.id))
		return
	}
	g.node.forward(l, g.id, p)
}

// flush takes a Raft snapshot, if there is something new for one. A leader takes none while
// it hands over, which is soon done or given up.
func (g *group) flush(ctx context.Context) error {
	for {
		err := g.snapshot(ctx)
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) || g.node.pause(ctx) != nil {
			return err
		}
	}
}

func (g *group) snapshot(ctx context.Context) error {
	if at, ok := g.machine.mark(); ok && g.fsm.consumed() == at.Applied {
		return nil
	}
	f := until(g, g.raft.Snapshot())
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		if err == nil || errors.Is(err, raft.ErrNothingNewToSnapshot) || g.ctx.Err() != nil {
			return nil // or the replica is gone, or the node closes
		}
		return raftError(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// greetTerms proposes an empty entry at the start of each term that this node leads:
// Raft's own no-op does not come by the state machine, and only an entry that does
// tells that everything of earlier terms has.
func (g *group) greetTerms() {
	var term uint64
	for {
		select {
		case lead := <-g.raft.LeaderCh():
			if !lead {
				g.ledUntilNow(term)
			} else {
				term = g.raft.CurrentTerm()
				g.raft.Apply(g.join(nil, nil), g.node.opts.CommitTimeout)
			}
		case <-g.ctx.Done():
			return
		}
	}
}
