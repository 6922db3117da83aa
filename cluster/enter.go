package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/strandline-db/strandline/shard/model"
)

// entrant is what a node says of itself that wants to enter a running cluster.
type entrant struct {
	Name        string `json:"name"`
	Incarnation string `json:"incarnation"`
	Address     string `json:"address"`
	HTTP        string `json:"http"`
	Shards      int    `json:"shards"`
	// PairLabel is how the folder places series: the node takes the cluster's label. Nil is
	// that of a binary which knows of none.
	PairLabel *string `json:"pairLabel,omitempty"`
}

// admission is the answer: what a member knows from its beginning.
type admission struct {
	Cluster   string            `json:"cluster"`
	Members   map[string]string `json:"members"`
	Grown     bool              `json:"grown,omitempty"`
	Addresses map[string]string `json:"addresses"`
	PairLabel string            `json:"pairLabel,omitempty"`
}

// enter asks a member to write this node into the cluster's map. It then follows the
// metadata, and holds the shards that the map gives it: none, if it is new.
func (n *Node) enter(ctx context.Context, me *self, at string) (waits []string, _ error) {
	if last := n.replicas.Log().Last(0); last > 0 {
		return nil, fmt.Errorf("%w: %s has a log, but is not a folder that the cluster of the node at %s knows: bring back the folder that it knew, or empty this one",
			ErrIdentity, n.opts.Dir, at)
	}
	label := n.replicas.PairLabel()
	req, err := json.Marshal(&entrant{Name: me.Name, Incarnation: me.Incarnation, Address: n.addr, HTTP: n.opts.HTTP, Shards: n.replicas.Len(), PairLabel: &label})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*n.opts.CommitTimeout)
	defer cancel()
	b, err := n.link(at).call(ctx, kindEnter, 0, req)
	if errors.Is(err, ErrIdentity) {
		return nil, err
	}
	if errors.Is(err, errDown) {
		return []string{n.link(at).awaited()}, nil
	}
	if err != nil {
		return []string{fmt.Sprintf("%s (%v)", at, err)}, nil
	}
	var a admission
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	if err := n.replicas.AdoptPairLabel(a.PairLabel); err != nil {
		return nil, err
	}
	n.opts.Logger.Info("cluster: entered", "id", a.Cluster, "by", at)
	return nil, n.identity.change(func(s *self) {
		s.Cluster, s.Members, s.Grown, s.Addresses, s.Started = a.Cluster, a.Members, a.Grown, a.Addresses, true
		s.Groups = map[uint64]replicaState{uint64(metaStream): learner}
	})
}

// answerEnter writes a node into the map: a new one, or one that has lost its folder.
func (n *Node) answerEnter(ctx context.Context, data []byte) ([]byte, error) {
	var e entrant
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", errMessage, err)
	}
	m := n.currentMap()
	if m == nil || !m.seeded {
		return nil, errForming
	}
	if n.removed() { // it would never hear that the other has entered
		return nil, fmt.Errorf("%w: node %s was removed from this cluster: give cluster-join a node that is in it", model.ErrUnavailable, n.name)
	}
	if e.Shards != n.replicas.Len() {
		return nil, fmt.Errorf("%w: this cluster has %d shards, node %s was started with %d: give it the same setting on an empty folder",
			ErrIdentity, n.replicas.Len(), e.Name, e.Shards)
	}
	label := n.replicas.PairLabel()
	if e.PairLabel == nil && label != "" {
		return nil, fmt.Errorf("%w: this cluster places series without the label %q, which the binary of node %s does not know of: upgrade it", ErrIdentity, label, e.Name)
	}
	was := m.nodes[e.Name]
	if was.Incarnation != e.Incarnation || was.State == stateRemoved {
		if err := n.mayReplace(ctx, &was, &e); err != nil {
			return nil, err
		}
		now := NodeRecord{Name: e.Name, Incarnation: e.Incarnation, Address: e.Address, HTTP: e.HTTP, State: stateMember}
		if was.State == stateDraining {
			now.State = stateDraining
		}
		if err := n.changeMap(func(c *model.RecordChange) error { return put(c, nodePrefix+e.Name, was.rev, &now) }); err != nil {
			return nil, fmt.Errorf("%w: %w", model.ErrUnavailable, err)
		}
		n.opts.Logger.Warn("cluster: a node has entered", "node", e.Name, "address", e.Address, "incarnation", e.Incarnation, "was", was.Incarnation)
	}
	me := n.identity.get()
	a := admission{Cluster: me.Cluster, Members: me.Members, Grown: me.Grown, Addresses: map[string]string{n.name: n.addr}, PairLabel: label}
	for name := range m.nodes {
		if at := n.book.of(name); len(at) > 0 && name != e.Name {
			a.Addresses[name] = at[0]
		}
	}
	return json.Marshal(&a)
}

// mayReplace refuses a second node of a name while the first one is there.
func (n *Node) mayReplace(ctx context.Context, was *NodeRecord, e *entrant) error {
	if was.rev == 0 || was.State == stateRemoved {
		return nil
	}
	if e.Name == n.name {
		return fmt.Errorf("%w: this is node %s: give the new one another name", ErrIdentity, n.name)
	}
	there, err := n.hello(ctx, e.Name)
	if err == nil && there.Name == e.Name && there.Incarnation == was.Incarnation {
		return fmt.Errorf("%w: a node %s is there already: give the new one another name", ErrIdentity, e.Name)
	}
	return nil
}
