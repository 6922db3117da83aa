package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const formWait = 200 * time.Millisecond // between rounds of asking

// form returns once this node belongs to a cluster. A new node asks all listed peers
// who they are. When all are new, they are the members, and the cluster's id follows
// from their incarnations: each node comes to the same by itself. A peer that is a
// member already, of the same cluster as any other, says of which members; if this incarnation is among them, then this
// node was seen by it as new, and takes the same. Otherwise the cluster formed with
// an earlier folder of this node, whose place it takes, or without it. A node that is
// to join has no peers, and enters.
func (n *Node) form(ctx context.Context) error {
	defer n.waitsFor("")
	var logged time.Time
	for {
		me := n.identity.get()
		if me.Cluster != "" {
			return nil
		}
		waits, err := n.tryForm(ctx, &me)
		if err != nil || waits == nil {
			return err
		}
		n.waitsFor("waiting to become part of a cluster, for " + strings.Join(waits, ", "))
		if time.Since(logged) > 5*time.Second {
			n.opts.Logger.Info("cluster: waiting to become part of one", "for", waits)
			logged = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(formWait):
		}
	}
}

// tryForm returns what this node still waits for; nil when it belongs to a cluster.
func (n *Node) tryForm(ctx context.Context, me *self) (waits []string, _ error) {
	if n.opts.Join != "" {
		return n.enter(ctx, me, n.opts.Join)
	}
	members := map[string]string{me.Name: me.Incarnation}
	var formed []self
	for _, name := range slices.Sorted(maps.Keys(n.opts.Peers)) {
		if name == me.Name {
			continue
		}
		peer, err := n.hello(ctx, name)
		if err != nil {
			waits = append(waits, n.link(name).awaited())
			continue
		}
		if peer.Name != name {
			return nil, fmt.Errorf("%w: at %s is node %q, not %q: look at cluster-peers", ErrIdentity, n.opts.Peers[name], peer.Name, name)
		}
		if peer.Cluster != "" {
			if len(formed) > 0 && formed[0].Cluster != peer.Cluster {
				return nil, fmt.Errorf("%w: node %s belongs to cluster %s, node %s to %s: look at cluster-peers, or stop the one that is of an old cluster",
					ErrIdentity, formed[0].Name, formed[0].Cluster, name, peer.Cluster)
			}
			formed = append(formed, peer.self)
			continue
		}
		if mine := n.replicas.PairLabel(); peer.PairLabel != mine {
			return nil, fmt.Errorf("%w: the folder of node %s places series without the label %q, that of this node without %q: start both with the same replica-label on empty folders",
				ErrIdentity, name, peer.PairLabel, mine)
		}
		members[name] = peer.Incarnation
	}
	switch {
	case len(formed) > 0:
		return n.adopt(ctx, me, formed)
	case len(waits) > 0:
		return waits, nil
	}
	return nil, n.become(members)
}

// adopt joins the cluster that peers have formed, with this node or with an earlier folder of
// it. It enters by whichever lets it in: one that was removed, or is cut off from the others, can't.
func (n *Node) adopt(ctx context.Context, me *self, peers []self) (waits []string, _ error) {
	peer := &peers[0]
	for i := range peers {
		if peers[i].Grown { // that one knows that others were to come
			peer = &peers[i]
		}
	}
	earlier, known := peer.Members[me.Name]
	switch {
	case earlier == me.Incarnation:
		if clusterID(peer.Members) != peer.Cluster {
			return nil, fmt.Errorf("%w: node %s gives cluster id %s, which does not follow from its members", ErrIdentity, peer.Name, peer.Cluster)
		}
		return nil, n.become(peer.Members)
	case !known && !peer.Grown:
		return nil, fmt.Errorf("%w: cluster %s has formed without a node %s: start it with cluster-join to enter", ErrIdentity, peer.Cluster, me.Name)
	}
	for i := range peers {
		why, err := n.enter(ctx, me, peers[i].Name)
		if err != nil || why == nil {
			return nil, err
		}
		waits = append(waits, why...)
	}
	return waits, nil
}

func (n *Node) become(members map[string]string) error {
	id := clusterID(members)
	n.opts.Logger.Info("cluster: formed", "id", id, "members", len(members))
	return n.identity.change(func(s *self) { s.Cluster, s.Members = id, members })
}

func (n *Node) hello(ctx context.Context, to string) (s helloAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	b, err := n.link(to).call(ctx, kindHello, 0, nil)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}
