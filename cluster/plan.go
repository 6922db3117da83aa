package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// PlanState says what is to become of a plan.
type PlanState string

// States of a plan.
const (
	PlanRunning    PlanState = "running"
	PlanPaused     PlanState = "paused"
	PlanCancelling PlanState = "cancelling" // the moves under way are undone
	PlanDone       PlanState = "done"
	PlanCancelled  PlanState = "cancelled"
)

// Plan is a list of moves that is carried out one after another. It lies in the map.
type Plan struct {
	ID    string    `json:"id"`
	Why   string    `json:"why"`
	State PlanState `json:"state"`
	Made  time.Time `json:"made"`
	Moves int       `json:"moves"`
	rev   uint64
}

// Open tells whether a plan is under way: there is one, and it has not ended.
func (p *Plan) Open() bool { return p != nil && p.State != PlanDone && p.State != PlanCancelled }

// revision is that of the record; 0 when there is none.
func (p *Plan) revision() uint64 {
	if p == nil {
		return 0
	}
	return p.rev
}

// Phase is how far a move has come. Each is written down before what it says is done,
// and what it says can be done again: whoever leads the metadata goes on from there.
type Phase string

// Phases of a move, in their order; then those of one that is undone.
const (
	PhasePlanned    Phase = "planned"
	PhaseAdding     Phase = "adding"      // To becomes a member without a vote
	PhaseCatchingUp Phase = "catching up" // it gets the blocks and the log
	PhaseVerifying  Phase = "verifying"   // it and the leader hash what they hold at one entry
	PhasePromoting  Phase = "promoting"   // it gets a vote
	PhaseHandover   Phase = "handing over"
	PhaseRemoving   Phase = "removing" // From loses its vote and membership
	PhaseDeleting   Phase = "deleting" // and its files
	PhaseDone       Phase = "done"

	PhaseUndoing Phase = "undoing"
	PhaseUndone  Phase = "undone"
)

// Move brings one replica of a shard from a node to another. Without From it is one
// more replica, without To one less.
type Move struct {
	Shard int    `json:"shard"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	Phase Phase  `json:"phase"`
	Index uint64 `json:"index,omitempty"` // at which both replicas had
	Hash  string `json:"hash,omitempty"`  // this hash
	Error string `json:"error,omitempty"` // why the phase is not over, at last
	rev   uint64
}

func (m *Move) ended() bool { return m.Phase == PhaseDone || m.Phase == PhaseUndone }

// planned tells whether a move of the last plan that has not ended leads to or from a node.
func (m *clusterMap) planned(name string) bool {
	return slices.ContainsFunc(m.moves, func(x Move) bool { return !x.ended() && (x.From == name || x.To == name) })
}

// planMoves returns the moves that bring the shards to where rendezvous wants them on the
// nodes that are members, in order of the shards. With the name of a node they are those alone that
// lead away from it.
func planMoves(m *clusterMap, away string) []Move {
	var moves []Move
	for i, want := range rendezvous(m.members(stateMember), len(m.shards)) {
		have := m.shards[i].Replicas
		var from, to []string
		for _, name := range have {
			if !slices.Contains(want, name) {
				from = append(from, name)
			}
		}
		for _, name := range want {
			if !slices.Contains(have, name) {
				to = append(to, name)
			}
		}
		if away != "" {
			from = slices.DeleteFunc(from, func(name string) bool { return name != away })
			to = to[:min(len(to), len(from))]
		}
		for k := range max(len(from), len(to)) {
			x := Move{Shard: i, Phase: PhasePlanned}
			if k < len(from) {
				x.From = from[k]
			}
			if k < len(to) {
				x.To = to[k]
			}
			moves = append(moves, x)
		}
	}
	return moves
}

// Proposal is a plan that nobody has started.
type Proposal struct {
	ID    string      `json:"id"` // of these moves: to start them, and not others
	Moves []Move      `json:"moves"`
	Nodes []NodeShare `json:"nodes"`
}

// Members returns how many nodes are members once the plan has been carried out.
func (p *Proposal) Members() int {
	n := 0
	for i := range p.Nodes {
		if p.Nodes[i].State == stateMember {
			n++
		}
	}
	return n
}

// NodeShare is how many replicas a node has, and would have after a plan.
type NodeShare struct {
	Node   string    `json:"node"`
	State  NodeState `json:"state"`
	Before int       `json:"before"`
	After  int       `json:"after"`
}

// propose proposes all moves, or, with the name of a node, those that lead away from it.
func propose(m *clusterMap, away string) (*Proposal, error) {
	p := &Proposal{Moves: planMoves(m, away)}
	b, err := json.Marshal(p.Moves)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	p.ID = hex.EncodeToString(sum[:6])
	for _, name := range m.members(stateMember, stateDraining) {
		s := NodeShare{Node: name, State: m.nodes[name].State}
		for i := range m.shards {
			if m.shards[i].on(name) {
				s.Before++
			}
		}
		s.After = s.Before
		for i := range p.Moves {
			if p.Moves[i].From == name {
				s.After--
			}
			if p.Moves[i].To == name {
				s.After++
			}
		}
		p.Nodes = append(p.Nodes, s)
	}
	return p, nil
}

func (m *Move) String() string {
	switch {
	case m.From == "":
		return fmt.Sprintf("shard %d: one more replica, on %s", m.Shard, m.To)
	case m.To == "":
		return fmt.Sprintf("shard %d: one replica less, on %s", m.Shard, m.From)
	}
	return fmt.Sprintf("shard %d: from %s to %s", m.Shard, m.From, m.To)
}
