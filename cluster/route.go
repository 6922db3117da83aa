package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// errNoReplica: a request for a group went to a node that has none of it.
var errNoReplica = fmt.Errorf("%w: this node has no replica of the group", model.ErrUnavailable)

// lead is who leads a group in a term; zero: nobody is known to. Term 0: a node of an earlier
// version has said so.
type lead struct {
	name string
	term uint64
}

// askTerm is a question for a group's leader that is to be answered with its term; without it
// the answer is the name alone.
const askTerm = "term"

// answer is the answer to who leads.
func (l lead) answer(question []byte) []byte {
	if l.name == "" || string(question) != askTerm {
		return []byte(l.name)
	}
	return fmt.Appendf(nil, "%s@%d", l.name, l.term)
}

// parseLead reads such an answer, or one of a node of an earlier version, which is a name.
func parseLead(b []byte) (lead, error) {
	name, term, ok := strings.Cut(string(b), "@")
	if !ok {
		return lead{name: name}, nil
	}
	t, err := strconv.ParseUint(term, 10, 64)
	if err != nil {
		return lead{}, errMessage
	}
	return lead{name, t}, nil
}

// leaders remembers who leads groups of which there is no replica here.
type leaders struct {
	mu struct {
		sync.Mutex
		of map[uint64]lead
	}
}

func (l *leaders) get(id uint64) lead {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.of[id]
}

func (l *leaders) set(id uint64, who lead) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.of == nil {
		l.mu.of = map[uint64]lead{}
	}
	l.mu.of[id] = who
}

// forget makes the next who needs it ask anew.
func (l *leaders) forget(id uint64) { l.set(id, lead{}) }

// holders returns the nodes that have a replica of a group.
func (n *Node) holders(id uint64) []string {
	m := n.currentMap()
	if id == uint64(metaStream) {
		return m.members(stateMember, stateDraining)
	}
	return m.shards[id].Replicas
}

// localLeader is localLead's name.
func (n *Node) localLeader(id uint64) string { return n.localLead(id).name }

// localLead returns who leads a group as the replica here knows; zero if it does not
// know, or there is none. While the replica installs a state, which may take long, Raft
// takes in nothing of later leaders: the others know better then.
func (n *Node) localLead(id uint64) lead {
	g := n.group(id)
	if g == nil || g.fsm.installing.Load() {
		return lead{}
	}
	return g.lead()
}

// lead returns who leads a group as this replica knows. While that changes the term may be
// that of before, in which a proposal is refused.
func (g *group) lead() lead {
	term := g.raft.CurrentTerm()
	return lead{g.leader(), term}
}

// knownLead is leadOf without asking anybody; zero if that would be needed.
func (n *Node) knownLead(id uint64) lead {
	if l := n.localLead(id); l.name != "" {
		return l
	}
	return n.leaders.get(id)
}

// linkTo returns the link on which a proposal to a group would go; nil if it stays here, or
// the leader is not known.
func (n *Node) linkTo(id uint64) *link {
	if l := n.knownLead(id); l.name != "" && l.name != n.name {
		return n.link(l.name)
	}
	return nil
}

// leadOf returns who leads a group: as its replica here knows, as is remembered, or as
// one of those that have replicas says.
func (n *Node) leadOf(ctx context.Context, id uint64) (lead, error) {
	if l := n.knownLead(id); l.name != "" {
		return l, nil
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	names := slices.DeleteFunc(slices.Clone(n.holders(id)), func(name string) bool { return name == n.name })
	answers := make(chan lead, len(names))
	for _, name := range names {
		go func() {
			var l lead
			b, err := n.link(name).call(ctx, kindLeader, id, []byte(askTerm))
			if err == nil {
				l, _ = parseLead(b) // what says nothing of use knows no leader
			}
			answers <- l
		}()
	}
	for range names {
		if l := <-answers; l.name != "" {
			n.leaders.set(id, l)
			return l, nil
		}
	}
	return lead{}, fmt.Errorf("%w: no node knows a leader of %s", model.ErrUnavailable, groupName(id))
}

// callLeader asks the leader of a group, wherever it is. Its own answer that it leads no
// more makes the next call look anew.
func (n *Node) callLeader(ctx context.Context, k kind, id uint64, data []byte) ([]byte, error) {
	l, err := n.leadOf(ctx, id)
	if err != nil {
		return nil, err
	}
	b, err := n.call(ctx, l.name, k, id, data)
	if err != nil {
		n.leaders.forget(id)
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
	if l := n.leaders.get(id); l.name != "" && l.name != n.name {
		n.forward(l, id, p)
		return
	}
	p.op = bytes.Clone(p.op) // its owner may go on meanwhile
	go func() {              // its first time, or after a change of leader
		l, err := n.leadOf(n.ctx, id)
		if p.overtaken() { // this leader may know nothing of what overtook it
			p.done(0, engine.Result{}, errLate)
			return
		}
		if err == nil && l.name == n.name {
			err = errNotLeader
		}
		if err != nil {
			n.leaders.forget(id)
			p.done(0, engine.Result{}, err)
			return
		}
		n.forward(l, id, p)
	}()
}

// forward sends a proposal to a group's leader, by another node if that one is silent. Into
// silence nothing is sent: there would be no answer, and there may soon be another leader.
func (n *Node) forward(l lead, id uint64, p *proposal) {
	p.stamp.term = l.term
	if !n.silent(l.name) {
		n.forwardTo(l.name, kindWrite, id, p)
		return
	}
	for _, via := range n.currentMap().members(stateMember, stateDraining) {
		if via != n.name && via != l.name && !n.silent(via) {
			n.forwardTo(via, kindRelayed, id, p)
			return
		}
	}
	n.leaders.forget(id)
	p.done(0, engine.Result{}, errSilent)
}

// silent tells whether a node does not answer this one, so that writes go around it.
func (n *Node) silent(name string) bool { return n.link(name).silent(n.patience() / 2) }

// relay proposes, or sends to the leader, what comes from a node that can't reach it.
func (n *Node) relay(id uint64, s stamp, op []byte, respond func([]byte, error)) {
	p := proposalFor(s, op, respond)
	if g := n.group(id); g != nil && g.leads() {
		g.submit(p)
		return
	}
	leader := n.knownLead(id).name
	if leader == "" || leader == n.name || n.silent(leader) {
		respond(nil, errNotLeader)
		return
	}
	n.forwardTo(leader, kindWrite, id, p)
}

// errEarlier: the next attempt goes out as nodes of that version know it.
var errEarlier = fmt.Errorf("%w: the node is of an earlier version", model.ErrUnavailable)

// forwardTo sends a proposal to a node, encoded before it returns.
func (n *Node) forwardTo(to string, k kind, id uint64, p *proposal) {
	l := n.link(to)
	m := &message{kind: k, group: id, put: p.put}
	plain := l.plain.Load()
	if plain {
		m = &message{kind: k.unstamped(), group: id, data: p.op}
	}
	l.send(m, nil, func(b []byte, err error) {
		if errors.Is(err, errMessage) && !plain {
			l.plain.Store(true)
			err = errEarlier // and not here: the operation may have been overtaken
		}
		var index uint64
		var r engine.Result
		if err == nil {
			d := &decoder{b: b}
			index, r = d.outcome(!plain)
			err = d.end()
		} else {
			n.leaders.forget(id)
		}
		p.done(index, r, err)
	})
}
