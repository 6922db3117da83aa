package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// SyncAll returns once the replicas here hold everything that was acknowledged anywhere
// before the call. It fails with model.ErrUnavailable if a group has no leader or no majority.
func (n *Node) SyncAll(ctx context.Context) error {
	if n.meta() == nil {
		return fmt.Errorf("%w: this node has not started yet", model.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	return n.catchUp(ctx, Linearizable, n.serving())
}

// CopyElsewhere calls copy with what another node that holds a shard offers of it: all that
// was acknowledged before the call. If that fails, it asks the next. The error is
// model.ErrUnavailable if there is none, and otherwise that of the last.
func (n *Node) CopyElsewhere(ctx context.Context, shard int, copy func(data []byte, fetch engine.Fetch) error) error {
	err := fmt.Errorf("%w: no node with a replica of shard %d can be reached", model.ErrUnavailable, shard)
	for _, name := range n.holders(uint64(shard)) {
		if name == n.name {
			continue
		}
		if err = n.copyFrom(ctx, name, uint64(shard), copy); err == nil || ctx.Err() != nil || errors.Is(err, model.ErrReadOnly) {
			return err
		}
		n.opts.Logger.Info("cluster: a copy of a shard failed", "shard", shard, "from", name, "err", err)
	}
	return err
}

func (n *Node) copyFrom(ctx context.Context, name string, shard uint64, copy func(data []byte, fetch engine.Fetch) error) error {
	l, id := n.bulk(name), rand.Uint64()|1
	b, err := l.call(ctx, kindCut, shard, putUvarints(nil, id))
	if b, err = l.awaitWork(ctx, id, b, err); err != nil {
		return err
	}
	d := &decoder{b: b}
	offer := d.uvarint()
	d.uvarint() // the entry that it has come to; the offer says it too
	if d.bad {
		return errMessage
	}
	defer l.start(kindRelease, shard, putUvarints(nil, offer), func([]byte, error) {})
	return copy(d.b, n.fetcher(shard, name))
}

// answerCut brings the replica here to where its leader is, makes that durable and offers it.
func (n *Node) answerCut(ctx context.Context, from *wire, shard uint64, data []byte) ([]byte, error) {
	d := &decoder{b: data}
	id := d.uvarint()
	if err := d.end(); err != nil || id == 0 || shard >= uint64(n.replicas.Len()) {
		return nil, errMessage
	}
	return n.startWork(ctx, from, id, 0, func(ctx context.Context) ([]byte, error) {
		g := n.group(shard)
		if g == nil || !n.holdsShard(int(shard)) {
			return nil, errNoReplica
		}
		cctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
		defer cancel()
		if err := n.catchUp(cctx, Linearizable, []*group{g}); err != nil {
			return nil, err
		}
		least := n.replicas.Shard(int(shard)).Applied()
		if err := g.flush(ctx); err != nil {
			return nil, err
		}
		b, err := n.offer(shard, least, (*engine.Replica).Offer)
		if err == nil && !n.holdsShard(int(shard)) { // it may have been wiped meanwhile
			err = errNoReplica
		}
		return b, err
	})
}

// Holds fails with ErrRefused if the replica of a shard here is none that answers reads.
func (n *Node) Holds(shard int) error {
	if n.holdsShard(shard) {
		return nil
	}
	return fmt.Errorf("%w: node %s does not hold shard %d, which lies on %s",
		ErrRefused, n.name, shard, strings.Join(n.currentMap().shards[shard].Replicas, ", "))
}

// IsMapRecord tells whether a record is of the cluster's map, which means nothing to
// another cluster or a single node.
func IsMapRecord(key string) bool { return strings.HasPrefix(key, mapPrefix) }

// OwnsFolder tells whether a data folder is that of a cluster's node.
func OwnsFolder(fsys vfs.FS, dir string) (bool, error) {
	_, err := fsys.Stat(path.Join(dir, identityName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
