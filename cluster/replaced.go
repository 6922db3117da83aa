package cluster

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/strandline-db/strandline/shard/model"
)

// A node that another folder has taken the place of, or that was removed while it was
// away, is no member of the metadata's group any more: nobody tells it of the change to
// the map that says so. While it hears of no leader it asks.

// askIfReplaced asks the other nodes what the map says of this one. If that is what it is, it may
// be no member all the same, and becomes one again.
func (n *Node) askIfReplaced() {
	if !n.unled(uint64(metaStream)) {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, attemptWait)
	defer cancel()
	for _, name := range n.currentMap().members(stateMember, stateDraining) {
		if name == n.name {
			continue
		}
		b, err := n.link(name).call(ctx, kindNode, 0, []byte(n.name))
		if err != nil {
			continue // it has no majority either, or its binary does not know of the question
		}
		var was NodeRecord
		if json.Unmarshal(b, &was) == nil && !n.replaced(&was) && was.Incarnation != "" && n.mayVoteInMeta() {
			if err := n.rejoinIfOut(uint64(metaStream)); err != nil {
				n.opts.Logger.Debug("cluster: whether this node is a member of the metadata's group is not known", "err", err)
			}
		}
		return
	}
}

// mayVoteInMeta tells whether this node takes itself for more than one that is about to enter.
func (n *Node) mayVoteInMeta() bool {
	return n.identity.get().Groups[uint64(metaStream)] == voter || n.meta().has(n.raftID)
}

// removed tells whether this node was removed: as it was told, or read in the map while it
// was a member of the metadata's group still.
func (n *Node) removed() bool {
	was := n.currentMap().nodes[n.name]
	return n.gone.Load() || was.State == stateRemoved && was.Incarnation == n.identity.get().Incarnation
}

// AwaitRemoval waits until this node was removed from the cluster. The error is that of ctx. A node
// that was removed still serves, with what others hold, until it is stopped.
func (n *Node) AwaitRemoval(ctx context.Context) error {
	for seen := uint64(0); !n.removed(); {
		if !n.mapped.wait(ctx, &seen, hostEvery) { // it may be told so by a node, without a map
			return ctx.Err()
		}
	}
	return nil
}

// answerNode says what the map has of a node, with all that was acknowledged before the
// question: one that has entered is in it.
func (n *Node) answerNode(ctx context.Context, name []byte) ([]byte, error) {
	m, err := n.freshMap(ctx)
	if err != nil {
		return nil, err
	}
	was := m.nodes[string(name)]
	return json.Marshal(&was)
}

// replaced acts on what the map, all of it, says of this node if this folder is no longer
// it; then it returns true. A node is in the map before it hears that it has entered, so
// another folder there came later, also where this one never had a vote.
func (n *Node) replaced(was *NodeRecord) bool {
	switch me := n.identity.get(); {
	case was.State == stateRemoved:
		n.gone.Store(true)
		return true
	case was.Incarnation != "" && was.Incarnation != me.Incarnation:
		n.fail(&replacedError{n.name, was.Incarnation, me.Incarnation})
		return true
	}
	return false
}

// replacedError stops a node as a failure of its storage does, and says why: the disk is
// in order.
type replacedError struct{ name, by, this string }

func (e *replacedError) Error() string {
	return fmt.Sprintf("%v: the cluster knows node %s by another folder since (%s, this one is %s): empty this folder to take the node back in",
		ErrIdentity, e.name, e.by, e.this)
}

// Is makes it both of what callers ask for.
func (e *replacedError) Is(target error) bool {
	return target == ErrIdentity || target == model.ErrFailed
}
