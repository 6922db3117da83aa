package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// errNoReplica: a request for a group went to a node that has none of it.
var errNoReplica = fmt.Errorf("%w: this node has no replica of the group", model.ErrUnavailable)

// leaders remembers who leads groups of which there is no replica here.
type leaders struct {
	mu struct {
		sync.Mutex
		of map[uint64]string
	}
}

func (l *leaders) get(id uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.of[id]
}

func (l *leaders) set(id uint64, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.of == nil {
		l.mu.of = map[uint64]string{}
	}
	l.mu.of[id] = name
}

// holders returns the nodes that have a replica of a group.
func (n *Node) holders(id uint64) []string {
	m := n.currentMap()
	if id == uint64(metaStream) {
		return m.members(stateMember, stateDraining)
	}
	return m.shards[id].Replicas
}

// localLeader returns who leads a group as the replica here knows; "" if it does not
// know, or there is none. While the replica installs a state, which may take long, Raft
// takes in nothing of later leaders: the others know better then.
func (n *Node) localLeader(id uint64) string {
	g := n.group(id)
	if g == nil || g.fsm.installing.Load() {
		return ""
	}
	return g.leader()
}

// knownLeader is leaderOf without asking anybody; empty if that would be needed.
func (n *Node) knownLeader(id uint64) string {
	if leader := n.localLeader(id); leader != "" {
		return leader
	}
	return n.leaders.get(id)
}

// linkTo returns the link on which a proposal to a group would go; nil if it stays here, or
// the leader is not known.
func (n *Node) linkTo(id uint64) *link {
	if leader := n.knownLeader(id); leader != "" && leader != n.name {
		return n.link(leader)
	}
	return nil
}

// leaderOf returns who leads a group: as its replica here knows, as is remembered, or as
// one of those that have replicas says.
func (n *Node) leaderOf(ctx context.Context, id uint64) (string, error) {
	if leader := n.knownLeader(id); leader != "" {
		return leader, nil
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	names := slices.DeleteFunc(slices.Clone(n.holders(id)), func(name string) bool { return name == n.name })
	answers := make(chan string, len(names))
	for _, name := range names {
		go func() {
			b, err := n.link(name).call(ctx, kindLeader, id, nil)
			if err != nil {
				b = nil
			}
			answers <- string(b)
		}()
	}
	for range names {
		if leader := <-answers; leader != "" {
			n.leaders.set(id, leader)
			return leader, nil
		}
	}
	return "", fmt.Errorf("%w: no node knows a leader of %s", model.ErrUnavailable, groupName(id))
}

// callLeader asks the leader of a group, wherever it is. Its own answer that it leads no
// more makes the next call look anew.
func (n *Node) callLeader(ctx context.Context, k kind, id uint64, data []byte) ([]byte, error) {
	leader, err := n.leaderOf(ctx, id)
	if err != nil {
		return nil, err
	}
	b, err := n.call(ctx, leader, k, id, data)
	if err != nil {
		n.leaders.set(id, "")
	}
	return b, err
}

// call asks a node, which may be this one.
func (n *Node) call(ctx context.Context, name string, k kind, id uint64, data []byte) ([]byte, error) {
	if name != n.name {
		return n.link(name).call(ctx, k, id, data)
	}
	ch := make(chan reply, 1)
	n.handle(ctx, nil, &message{kind: k, group: id, data: data}, func(b []byte, err error) { ch <- reply{b, err} })
	select {
	case r := <-ch:
		return r.data, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", model.ErrUnavailable, context.Cause(ctx))
	}
}

// send brings a proposal to the leader of its group, wherever it is.
func (n *Node) send(id uint64, p *proposal) {
	if g := n.group(id); g != nil && (g.leads() || n.localLeader(id) != "") {
		g.send(p)
		return
	}
	if leader := n.leaders.get(id); leader != "" && leader != n.name {
		n.forward(leader, id, p)
		return
	}
	go func() { // its first time, or after a change of leader
		leader, err := n.leaderOf(n.ctx, id)
		if err == nil && leader == n.name {
			err = errNotLeader
		}
		if err != nil {
			n.leaders.set(id, "")
			p.done(0, engine.Result{}, err)
			return
		}
		n.forward(leader, id, p)
	}()
}

// forward sends a proposal to a group's leader, by another node if that one is silent. Into
// silence nothing is sent: there would be no answer, and there may soon be another leader.
func (n *Node) forward(leader string, id uint64, p *proposal) {
	if !n.silent(leader) {
		n.forwardTo(leader, kindPropose, id, p)
		return
	}
	for _, via := range n.currentMap().members(stateMember, stateDraining) {
		if via != n.name && via != leader && !n.silent(via) {
			n.forwardTo(via, kindRelay, id, p)
			return
		}
	}
	n.leaders.set(id, "")
	p.done(0, engine.Result{}, errSilent)
}

// silent tells whether a node does not answer this one, so that writes go around it.
func (n *Node) silent(name string) bool { return n.link(name).silent(n.patience() / 2) }

// relay proposes, or sends to the leader, what comes from a node that can't reach it.
func (n *Node) relay(id uint64, op []byte, respond func([]byte, error)) {
	p := proposalFor(op, respond)
	if g := n.group(id); g != nil && g.leads() {
		g.submit(p)
		return
	}
	leader := n.knownLeader(id)
	if leader == "" || leader == n.name || n.silent(leader) {
		respond(nil, errNotLeader)
		return
	}
	n.forwardTo(leader, kindPropose, id, p)
}

func (n *Node) forwardTo(to string, k kind, id uint64, p *proposal) {
	n.link(to).start(k, id, p.op, func(b []byte, err error) {
		var index uint64
		var r engine.Result
		if err == nil {
			d := &decoder{b: b}
			index, r = d.outcome()
			err = d.end()
		} else {
			n.leaders.set(id, "")
		}
		p.done(index, r, err)
	})
}
