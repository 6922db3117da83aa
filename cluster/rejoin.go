package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	rejoinPause = 300 * time.Millisecond
	changeWait  = 5 * time.Second // for one change of a group's members
	nearEntries = 8               // behind the leader, for one that is to become a voter
)

var errBehind = errors.New("the node has not caught up")

// rejoinGroup makes this node a voter of a group that has it on its list without having
// it as a member, or with an earlier folder: the old member is removed, the new one added
// without a vote, and given one when it has caught up. It is taken up again until it
// succeeds.
func (n *Node) rejoinGroup(id uint64) error {
	g := n.group(id)
	if g == nil {
		return errNoReplica
	}
	ctx, cancel := context.WithTimeout(n.ctx, 2*changeWait)
	defer cancel()
	if !g.votes(n.raftID) {
		if err := n.joinGroup(id); err != nil {
			return err
		}
		if err := g.fsm.wait(ctx, 1, 0); err != nil { // it has heard of the group's state
			return err
		}
	}
	// Noted before it may be true: a voter that loses its log must never start empty.
	if err := n.identity.setGroup(id, voter); err != nil {
		return err
	}
	if g.votes(n.raftID) {
		return nil
	}
	return n.changeGroup(ctx, id, &groupChange{Promote: n.raftID}) // after an error it may be one, too
}

// joinGroup makes this node a member without a vote, in the place of an earlier folder
// of it.
func (n *Node) joinGroup(id uint64) error {
	ctx, cancel := context.WithTimeout(n.ctx, changeWait)
	defer cancel()
	v, err := n.askConfig(ctx, id)
	if err != nil {
		return err
	}
	if err := n.confirmPlace(ctx, id); err != nil { // from here on a move that takes it away changes the members
		return err
	}
	for _, s := range v.Servers {
		if s.Node == n.name && s.ID != n.raftID {
			n.opts.Logger.Warn("cluster: having the member removed whose folder is lost", "group", groupName(id), "id", s.ID)
			return errors.Join(errBehind, n.changeGroup(ctx, id, &groupChange{Remove: s.ID, Prev: v.Index}))
		}
	}
	if v.find(n.raftID) != nil {
		return nil
	}
	return n.changeGroup(ctx, id, &groupChange{Add: n.raftID, Prev: v.Index})
}

// confirmPlace returns nil if a group is to have a replica here by the map as it is now. A
// node that has just entered reads the past of the map first, in which its name may stand
// for more.
func (n *Node) confirmPlace(ctx context.Context, id uint64) error {
	if id == uint64(metaStream) {
		return nil
	}
	if !n.meta().has(n.raftID) { // which the map would be waited for
		return fmt.Errorf("%w: it is no member of the metadata's group yet", errBehind)
	}
	m, err := n.freshMap(ctx)
	if err == nil && !m.shards[id].on(n.name) {
		err = fmt.Errorf("%w: %s is not to lie here", errNoReplica, groupName(id))
	}
	return err
}

// votes tells whether a member is a voter, as far as this node knows.
func (g *group) votes(id raft.ServerID) bool {
	for _, s := range g.voters() {
		if s.ID == id {
			return true
		}
	}
	return false
}

// groupView is what a group's leader says of it.
type groupView struct {
	Index    uint64       `json:"index"` // of the configuration
	Term     uint64       `json:"term"`
	Consumed uint64       `json:"consumed"` // by the leader's state machine
	Leader   string       `json:"leader"`
	Servers  []serverView `json:"servers"`
}

type serverView struct {
	ID    raft.ServerID `json:"id"`
	Node  string        `json:"node"`
	Voter bool          `json:"voter"`
}

func (v *groupView) find(id raft.ServerID) *serverView {
	for i := range v.Servers {
		if v.Servers[i].ID == id {
			return &v.Servers[i]
		}
	}
	return nil
}

func (v *groupView) votes(id raft.ServerID) bool {
	s := v.find(id)
	return s != nil && s.Voter
}

// askConfig asks a group's leader for its members.
func (n *Node) askConfig(ctx context.Context, id uint64) (*groupView, error) {
	b, err := n.callLeader(ctx, kindConfig, id, nil)
	if err != nil {
		return nil, err
	}
	v := &groupView{}
	return v, json.Unmarshal(b, v)
}

// answerConfig is the other side: only a leader that a majority has followed in its term
// can tell, and only of members that are committed. What is in its log alone the next leader may
// overrule, when one that is to go by it has deleted what it holds and a move has gone on.
func (g *group) answerConfig(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	indexes, terms := g.node.readIndexes(ctx, []*group{g}, Linearizable)
	if indexes[0] == 0 {
		return nil, errNotLeader
	}
	members, committed := g.members()
	if !committed {
		return nil, fmt.Errorf("%w: the members of %s are about to change", model.ErrUnavailable, g.name())
	}
	v := groupView{Index: members.index, Term: terms[0], Consumed: g.fsm.consumed(), Leader: g.node.name}
	for _, s := range members.servers() {
		v.Servers = append(v.Servers, serverView{ID: s.ID, Node: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return json.Marshal(&v)
}

// groupChange is one change of a group's members: one of its fields is set.
type groupChange struct {
	Add      raft.ServerID `json:"add,omitempty"`     // without a vote
	Promote  raft.ServerID `json:"promote,omitempty"` // if it has caught up
	Demote   raft.ServerID `json:"demote,omitempty"`
	Remove   raft.ServerID `json:"remove,omitempty"`
	Transfer string        `json:"transfer,omitempty"` // the leadership to a node; "*": to any
	// Prev is the configuration that the change is meant for; 0: any.
	Prev uint64 `json:"prev,omitempty"`
}

// changeGroup has a group's leader change its members.
func (n *Node) changeGroup(ctx context.Context, id uint64, c *groupChange) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	_, err = n.callLeader(ctx, kindChange, id, b)
	return err
}

// answerChange is the other side of changeGroup.
func (g *group) answerChange(ctx context.Context, data []byte) error {
	var c groupChange
	if err := json.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("%w: %w", errMessage, err)
	}
	if !g.leads() {
		return errNotLeader
	}
	var f raft.Future
	switch {
	case c.Add != "":
		f = g.raft.AddNonvoter(c.Add, raft.ServerAddress(nodeOf(c.Add)), c.Prev, changeWait)
	case c.Promote != "":
		if err := g.mayVote(ctx, &c); err != nil {
			return err
		}
		f = g.raft.AddVoter(c.Promote, raft.ServerAddress(nodeOf(c.Promote)), c.Prev, changeWait)
	case c.Demote != "":
		if err := g.maySpare(ctx, c.Demote, &c); err != nil {
			return err
		}
		f = g.raft.DemoteVoter(c.Demote, c.Prev, changeWait)
	case c.Remove != "":
		if err := g.maySpare(ctx, c.Remove, &c); err != nil {
			return err
		}
		f = g.raft.RemoveServer(c.Remove, c.Prev, changeWait)
	case c.Transfer != "":
		return g.handTo(c.Transfer)
	default:
		return errMessage
	}
	if err := until(g, f).Error(); err != nil {
		return raftError(err)
	}
	return nil
}

// meantFor returns the members as they are, and makes a change one that is meant for them unless
// it is meant for others.
func (g *group) meantFor(c *groupChange) (*raft.Configuration, error) {
	seen, _ := g.members()
	if len(seen.data) == 0 {
		return nil, fmt.Errorf("%w: the members of %s are not known here", model.ErrUnavailable, g.name())
	}
	if c.Prev == 0 {
		c.Prev = seen.index
	}
	members := raft.DecodeConfiguration(seen.data)
	return &members, nil
}

// mayVote returns nil if a change gives a vote to a member that has caught up, and makes it
// meant for the members among which that was found: Raft would take in anew one that has left.
func (g *group) mayVote(ctx context.Context, c *groupChange) error {
	members, err := g.meantFor(c)
	if err != nil {
		return err
	}
	if suffrageIn(members, c.Promote) == nil {
		return fmt.Errorf("%w: %s is no member", errBehind, c.Promote)
	}
	at := g.fsm.consumed() // before it answers: over a slow link it is always some entries behind what is here by then
	t, err := g.node.askTerms(ctx, nodeOf(c.Promote), g.id)
	if err == nil && t[0].consumed+nearEntries < at {
		err = fmt.Errorf("%w: at entry %d of %d", errBehind, t[0].consumed, at)
	}
	return err
}

// maySpare returns nil if a change takes a vote from a member without which the others can go
// on: a majority of the voters that stay is there. Raft counts by them from the moment that
// the change is in its log, so that otherwise nothing would be committed from then on, not
// even a way back. The change is meant for the members among which that was found.
func (g *group) maySpare(ctx context.Context, id raft.ServerID, c *groupChange) error {
	members, err := g.meantFor(c)
	if err != nil {
		return err
	}
	if state := suffrageIn(members, id); state == nil || *state != voter {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	var stay errgroup.Group
	var away []string
	var mu sync.Mutex
	voters := 0
	for _, s := range members.Servers {
		if s.Suffrage != raft.Voter || s.ID == id {
			continue
		}
		voters++
		stay.Go(func() error {
			if s.ID != g.node.raftID && !g.near(ctx, string(s.Address)) {
				mu.Lock()
				defer mu.Unlock()
				away = append(away, string(s.Address))
			}
			return nil
		})
	}
	_ = stay.Wait() // away has what was found
	if slices.Sort(away); voters > 0 && voters-len(away) <= voters/2 {
		return fmt.Errorf("%w: %s can't do without %s while %s is away or far behind: start that node, or remove it by force",
			model.ErrUnavailable, g.name(), nodeOf(id), strings.Join(away, ", "))
	}
	return nil
}

// near tells whether a node follows this leader and is near enough to need no state.
func (g *group) near(ctx context.Context, name string) bool {
	t, err := g.node.askTerms(ctx, name, g.id)
	return err == nil && t[0].term == g.raft.CurrentTerm() && t[0].consumed+g.node.opts.TrailingLogs >= g.fsm.consumed()
}

// handTo gives the leadership to the named voter; "*": to any other.
func (g *group) handTo(name string) error {
	for _, s := range g.voters() {
		if to := string(s.Address); to != g.node.name && (name == "*" || name == to) && g.node.transfer(g, s) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s can't take the leadership of %s now", model.ErrUnavailable, name, g.name())
}
