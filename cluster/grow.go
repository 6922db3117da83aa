package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal"
)

// The folder of a single node becomes the first of a cluster. Raft's own bootstrap
// refuses what has a state, and must: if the other nodes were members from the start,
// they could elect one of themselves, with nothing. So the cluster begins with this
// node alone, as a manifest of each shard with term 1 and that configuration, and the
// others, which have empty folders, become members as one that has lost its folder
// does: the map has them on its list from the start. Until Started is noted the folder is a single node's as well as before.

// mayGrow returns nil unless the data of a single node lies here and a cluster runs
// already that this node is to be part of: such data can begin a cluster, and not come into
// one, so that there would be two, each taking writes. Nodes that are away are not waited for.
func (n *Node) mayGrow(ctx context.Context) error {
	if n.identity.get().Cluster != "" || !n.holdsSingle() {
		return nil
	}
	if n.opts.Join != "" {
		return fmt.Errorf("%w: %s holds the data of a single node, which can begin a cluster (cluster-peers) but not enter one (cluster-join): empty it first",
			ErrIdentity, n.opts.Dir)
	}
	for _, name := range slices.Sorted(maps.Keys(n.opts.Peers)) {
		if name == n.name {
			continue
		}
		if peer, err := n.hello(ctx, name); err == nil && peer.Cluster != "" {
			return fmt.Errorf("%w: %s holds the data of a single node, which can begin a cluster, but node %s belongs to cluster %s already: empty this folder to enter that one, or, to begin with this one, stop the other nodes and empty theirs",
				ErrIdentity, n.opts.Dir, name, peer.Cluster)
		}
	}
	return nil
}

// adoptSingle makes a cluster of its own of a folder that holds the data of a single node.
func (n *Node) adoptSingle() error {
	if n.identity.get().Cluster != "" || !n.holdsSingle() {
		return nil
	}
	return n.identity.change(func(s *self) {
		s.Grown, s.Members = true, map[string]string{s.Name: s.Incarnation}
		s.Cluster = clusterID(s.Members)
	})
}

// holdsSingle tells whether there is data and no group of Raft's.
func (n *Node) holdsSingle() bool {
	data := false
	for i := range n.replicas.Len() {
		if _, ours := n.replicas.Log().Value(wal.StreamID(i), keyCurrentTerm); ours {
			return false
		}
		data = data || n.replicas.Log().Last(wal.StreamID(i)) > 0 || n.replicas.Shard(i).Manifest().Applied > 0
	}
	return data
}

// grow settles the data of a single node as that of the cluster that begins with it.
func (n *Node) grow(ctx context.Context) error {
	me := n.identity.get()
	if me.Started || !me.Grown || len(me.Groups) > 0 {
		return nil
	}
	n.opts.Logger.Info("cluster: the data of a single node becomes that of a cluster", "id", me.Cluster)
	return n.settle(ctx, firstConfiguration(me.Members, 0, n.replicas.Len()))
}

// settle makes all that the log holds durable state, with a configuration of its own.
// The logs begin behind it, so that other replicas are sent that state.
func (n *Node) settle(ctx context.Context, c *raft.Configuration) error {
	conf, log := raft.EncodeConfiguration(*c), n.replicas.Log()
	if err := n.replicas.Settle(ctx, isMark, func(at engine.Mark) engine.Mark {
		at.Configuration, at.ConfigurationIndex = conf, at.Applied
		return at
	}); err != nil {
		return err
	}
	meta := &metaMachine{node: n, r: n.replicas}
	t, err := tailOf(log, uint64(metaStream), meta, nil, 0)
	if err != nil {
		return err
	}
	// At least one entry: the metadata is in none, and only behind a log's begin is a
	// state sent. And all that the records know of, if the log has lost its end: an entry
	// of the same number would not be applied.
	last := max(1, t.end.Index, n.replicas.MetaImage().Applied)
	at := engine.Mark{Applied: last, Term: max(1, t.end.Term), Configuration: conf, ConfigurationIndex: last}
	if err := errors.Join((*metaCut)(meta).persist(at), log.Reset(metaStream, at.Applied)); err != nil {
		return err
	}
	for _, m := range n.machines() {
		at, _ := m.mark()
		term := max(1, at.Term) // of a log that was lost no term is left, and none may be below an entry's
		if b, ok := log.Value(wal.StreamID(m.id), keyCurrentTerm); ok && len(b) == 8 && binary.LittleEndian.Uint64(b) >= term {
			continue
		}
		if err := log.SetValue(wal.StreamID(m.id), keyCurrentTerm, appendTerm(term)); err != nil {
			return err
		}
	}
	return nil
}
