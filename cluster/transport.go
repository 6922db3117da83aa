package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

const (
	rpcQueue    = 256 // requests of one group that wait for its Raft
	pipelineCap = 128 // appends of one group to one peer under way
	shortWait   = 2 * time.Second
	appendWait  = 10 * time.Second
)

// transport is one group's raft.Transport over the node's links.
type transport struct {
	node      *Node
	ctx       context.Context // the group's
	group     uint64
	rpcs      chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]
	consumed  func() uint64          // by the state machine
	follows   func(term uint64) bool // tells whether this node is a follower in this term
	covers    func(*raft.InstallSnapshotRequest) *raft.InstallSnapshotResponse
	goOn      func(*raft.AppendEntriesRequest)
	durable   func(index uint64) error // waits until the log here holds the group's entries up to it
	told      told
	led       func(term uint64) uint64 // see group.ledIndex
	// announce tells a follower that an entry is committed, if it is one of this term.
	announce func(index uint64, to raft.ServerAddress)
	fresh    freshness
	flowing  flowing
	floor    atomic.Pointer[place] // see reassure; nil: none
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
)

// errBusy: a group's Raft does not keep up with the requests for it.
var errBusy = errors.New("too many requests wait for this group")

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

// LocalAddr implements raft.Transport.
func (t *transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.node.name) }

// EncodePeer implements raft.Transport.
func (t *transport) EncodePeer(_ raft.ServerID, addr raft.ServerAddress) []byte { return []byte(addr) }

// DecodePeer implements raft.Transport.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *transport) SetHeartbeatHandler(cb func(raft.RPC)) { t.heartbeat.Store(&cb) }

// forMember begins a request with the id of the member that it is for. What answers at its
// address may be a later incarnation, which must not answer, still less vote, for it.
func forMember(id raft.ServerID) []byte { return putBytes(nil, id) }

func (t *transport) call(target raft.ServerAddress, wait time.Duration, k kind, data []byte) (*decoder, error) {
	if t.node.stalled() {
		return nil, errStalled
	}
	ctx, cancel := context.WithTimeout(t.ctx, wait)
	defer cancel()
	b, err := t.node.link(string(target)).call(ctx, k, t.group, data)
	return &decoder{b: b}, err
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) && !t.node.stalled() {
		return t.sendHeartbeat(id, target, args, resp)
	}
	t.told.commit(target, args.LeaderCommitIndex)
	d, err := t.call(target, appendWait, kindAppend, putAppend(forMember(id), args))
	if err != nil {
		return err
	}
	d.appendResponse(resp)
	if err = d.end(); err == nil {
		if err = t.ownFirst(args); err != nil {
			resp.Success = false
		}
	}
	return err
}

// ownFirst waits until this node's own log holds the entries of a request that a follower
// has answered; see lateWrites.
func (t *transport) ownFirst(args *raft.AppendEntriesRequest) error {
	if n := len(args.Entries); n > 0 {
		return t.durable(args.Entries[n-1].Index)
	}
	return nil
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.refusesVote(args) {
		return errBelowFloor
	}
	d, err := t.call(target, shortWait, kindVote, putVote(forMember(id), args))
	if err != nil {
		return err
	}
	resp.RPCHeader, resp.Term, resp.Granted = d.granted()
	return d.end()
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.refusesVote(args) {
		return errBelowFloor
	}
	d, err := t.call(target, shortWait, kindPreVote, putPreVote(forMember(id), args))
	if err != nil {
		return err
	}
	resp.RPCHeader, resp.Term, resp.Granted = d.granted()
	return d.end()
}

// InstallSnapshot implements raft.Transport. The data is a manifest, not the blocks,
// which the follower fetches before it answers: it may take as long as that takes.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	body, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	b, err := t.node.link(string(target)).call(t.ctx, kindInstall, t.group, putInstall(forMember(id), args, body))
	if err != nil {
		return err
	}
	d := &decoder{b: b}
	resp.RPCHeader, resp.Term, resp.Success = d.granted()
	return d.end()
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	d, err := t.call(target, shortWait, kindTimeoutNow, putHeader(forMember(id), &args.RPCHeader))
	if err != nil {
		return err
	}
	resp.RPCHeader = d.header()
	return d.end()
}

// receive hands a peer's request to this group's Raft.
func (t *transport) receive(m *message, respond func([]byte, error)) {
	d := &decoder{b: m.data}
	if id := raft.ServerID(d.bytes()); id != t.node.raftID && !d.bad {
		respond(nil, fmt.Errorf("%w: this is %s, not %s", ErrIdentity, t.node.raftID, id))
		return
	}
	answers := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{RespChan: answers}
	switch m.kind {
	case kindAppend, kindAnnounce:
		req := d.appendRequest()
		if !wellFormed(req) {
			respond(nil, errMixed)
			return
		}
		t.goOn(req)
		rpc.Command = req
	case kindHeartbeat:
		t.receiveHeartbeat(d, respond)
		return
	case kindVote:
		rpc.Command = d.vote()
	case kindPreVote:
		rpc.Command = d.preVote()
	case kindInstall:
		req, data := d.install()
		if a := t.covers(req); a != nil && !d.bad {
			respond(putInstallResponse(nil, a), nil)
			return
		}
		rpc.Command, rpc.Reader = req, bytes.NewReader(data)
	case kindTimeoutNow:
		rpc.Command = &raft.TimeoutNowRequest{RPCHeader: d.header()}
	}
	if err := d.end(); err != nil {
		respond(nil, err)
		return
	}
	if t.refusesVote(rpc.Command) {
		respond(nil, errBelowFloor)
		return
	}
	if !t.queue(rpc) {
		respond(nil, errBusy)
		return
	}
	go t.settle(answers, respond)
}

var errMixed = errors.New("the request was put together while the sender's log was cut")

// wellFormed tells whether a leader that led all the time, over a log that stayed, can have
// put a request together. Raft reads the log entry by entry in a goroutine that goes on for a
// moment when the leader is overruled: then the first entries may be its own, and those behind
// them what the next leader made of its log; or one is gone behind a flush.
func wellFormed(r *raft.AppendEntriesRequest) bool {
	term := r.PrevLogTerm
	for _, e := range r.Entries {
		if e.Term < term || e.Type == typeGone {
			return false
		}
		term = e.Term
	}
	return term <= r.Term
}

// queue hands a request to Raft's main goroutine; false if too many wait for that.
func (t *transport) queue(rpc raft.RPC) bool {
	select {
	case t.rpcs <- rpc:
		return true
	default:
		return false
	}
}

// settle waits for Raft's answer and sends it. Raft answers nothing once it has been
// shut down; then the peer is told so, which would wait for ever on a connection that
// other groups keep alive.
func (t *transport) settle(answers <-chan raft.RPCResponse, respond func([]byte, error)) any {
	var a raft.RPCResponse
	select {
	case a = <-answers:
	case <-t.ctx.Done():
		respond(nil, errNoReplica)
		return nil
	}
	var b []byte
	switch r := a.Response.(type) {
	case *raft.AppendEntriesResponse:
		b = putAppendResponse(nil, r)
	case *raft.RequestVoteResponse:
		b = putGranted(nil, &r.RPCHeader, r.Term, r.Granted)
	case *raft.RequestPreVoteResponse:
		b = putGranted(nil, &r.RPCHeader, r.Term, r.Granted)
	case *raft.InstallSnapshotResponse:
		b = putInstallResponse(nil, r)
	case *raft.TimeoutNowResponse:
		b = putHeader(nil, &r.RPCHeader)
	}
	respond(b, a.Error)
	return a.Response
}

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &pipeline{trans: t, target: target, link: t.node.link(string(target)), id: id, group: t.group, flying: make(chan *appendFuture, pipelineCap),
		ready: make(chan raft.AppendFuture, pipelineCap), closed: make(chan struct{})}
	t.flowing.add(p)
	go p.order()
	return p, nil
}

// flowing is the pipelines of a group.
type flowing struct {
	mu struct {
		sync.Mutex
		all []*pipeline
	}
}

func (f *flowing) add(p *pipeline) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.all = append(f.mu.all, p)
}

func (f *flowing) remove(p *pipeline) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.all = slices.DeleteFunc(f.mu.all, func(q *pipeline) bool { return p == q })
}

// count adds one for each link that the group's next entry will go to.
func (f *flowing) count(links map[*link]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.mu.all {
		links[p.link]++
	}
}

// pipeline sends appends without waiting for their answers, which it delivers in the
// order of the requests.
type pipeline struct {
	trans  *transport
	target raft.ServerAddress
	link   *link
	id     raft.ServerID
	group  uint64
	flying chan *appendFuture
	ready  chan raft.AppendFuture
	closed chan struct{}
	once   sync.Once
}

type appendFuture struct {
	start time.Time
	args  *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	done  chan struct{}
	err   error
}

// Error implements raft.Future.
func (f *appendFuture) Error() error { <-f.done; return f.err }

// Start implements raft.AppendFuture.
func (f *appendFuture) Start() time.Time { return f.start }

// Request implements raft.AppendFuture.
func (f *appendFuture) Request() *raft.AppendEntriesRequest { return f.args }

// Response implements raft.AppendFuture.
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

// AppendEntries implements raft.AppendPipeline.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f := &appendFuture{start: time.Now(), args: args, resp: resp, done: make(chan struct{})}
	select {
	case p.flying <- f:
	case <-p.closed:
		return nil, raft.ErrPipelineShutdown
	}
	if p.link.node.stalled() {
		f.err = errStalled
		close(f.done)
		return f, nil
	}
	p.trans.told.commit(p.target, args.LeaderCommitIndex)
	put := func(dst []byte) []byte { return putAppend(putBytes(dst, p.id), args) }
	p.link.send(&message{kind: kindAppend, group: p.group, put: put}, nil, func(b []byte, err error) {
		if err == nil {
			d := &decoder{b: b}
			d.appendResponse(resp)
			err = d.end()
		}
		f.err = err
		close(f.done)
	})
	return f, nil
}

// order delivers the answers. One that failed is delivered too, and ends the pipeline:
// its response says no success, after which Raft reads no more, and must not go on to
// send until there is no room.
func (p *pipeline) order() {
	for {
		var f *appendFuture
		select {
		case f = <-p.flying:
		case <-p.closed:
			return
		}
		select {
		case <-f.done:
		case <-p.closed:
			return
		}
		if f.err == nil {
			if f.err = p.trans.ownFirst(f.args); f.err != nil {
				f.resp.Success = false // Raft goes by this alone
			}
		}
		select {
		case p.ready <- f:
		case <-p.closed:
			return
		}
		if f.err != nil || !f.resp.Success {
			_ = p.Close() // never fails
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.ready }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.trans.flowing.remove(p)
	})
	return nil
}
