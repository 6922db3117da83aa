package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

const formWait = 200 * time.Millisecond // between rounds of asking

// form returns once this node belongs to a cluster. A new node asks all listed peers
// who they are. When all are new, they are the members, and the cluster's id follows
// from their incarnations: each node comes to the same by itself. A peer that is a
// member already says of which members; if this incarnation is among them, then this
// node was seen by it as new, and takes the same. Otherwise the cluster formed with
// an earlier folder of this node, or without it.
func (n *Node) form(ctx context.Context) error {
	var logged time.Time
	for {
		me := n.identity.get()
		if me.Cluster != "" {
			return nil
		}
		members := map[string]string{me.Name: me.Incarnation}
		var missing []string
		for _, name := range slices.Sorted(maps.Keys(n.opts.Peers)) {
			if name == me.Name {
				continue
			}
			peer, err := n.hello(ctx, n.opts.Peers[name])
			if err != nil {
				missing = append(missing, name)
				continue
			}
			if peer.Name != name {
				return fmt.Errorf("%w: at %s is node %q, not %q: look at cluster-peers", ErrIdentity, n.opts.Peers[name], peer.Name, name)
			}
			if peer.Cluster != "" {
				return n.adopt(&me, &peer)
			}
			members[name] = peer.Incarnation
		}
		if len(missing) == 0 {
			return n.become(members)
		}
		if time.Since(logged) > 5*time.Second {
			n.opts.Logger.Info("cluster: waiting for the other nodes to form it", "missing", missing)
			logged = time.Now()
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(formWait):
		}
	}
}

// adopt joins a cluster that has formed, with this node or with an earlier folder of it.
func (n *Node) adopt(me, peer *self) error {
	if clusterID(peer.Members) != peer.Cluster {
		return fmt.Errorf("%w: node %s gives cluster id %s, which does not follow from its members", ErrIdentity, peer.Name, peer.Cluster)
	}
	earlier, known := peer.Members[me.Name]
	switch {
	case earlier == me.Incarnation:
		return n.become(peer.Members)
	case !known:
		return fmt.Errorf("%w: cluster %s has formed without a node %s", ErrIdentity, peer.Cluster, me.Name)
	case n.replicas.Log().Last(0) > 0:
		return fmt.Errorf("%w: %s has a log, but is not the folder that node %s had in cluster %s: bring that back, or empty this one and start again",
			ErrIdentity, n.opts.Dir, me.Name, peer.Cluster)
	}
	n.opts.Logger.Warn("cluster: this folder is new, the cluster knew another of this node; becoming a member again", "id", peer.Cluster, "was", earlier)
	return n.identity.change(func(s *self) { s.Cluster, s.Members, s.Joining = peer.Cluster, peer.Members, true })
}

func (n *Node) become(members map[string]string) error {
	id := clusterID(members)
	n.opts.Logger.Info("cluster: formed", "id", id, "members", len(members))
	return n.identity.change(func(s *self) { s.Cluster, s.Members = id, members })
}

func (n *Node) hello(ctx context.Context, addr string) (s self, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	b, err := n.link(addr).call(ctx, kindHello, 0, nil, false)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}
