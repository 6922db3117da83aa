package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// SyncAll returns once the replicas here hold everything that was acknowledged anywhere
// before the call. It fails with ErrRefused if a shard has none here, and says where it
// lies, and with model.ErrUnavailable if a group has no leader or no majority.
func (n *Node) SyncAll(ctx context.Context) error {
	if n.meta() == nil {
		return fmt.Errorf("%w: this node has not started yet", model.ErrUnavailable)
	}
	for i := range n.replicas.Len() {
		if err := n.Holds(i); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, n.opts.CommitTimeout)
	defer cancel()
	return n.catchUp(ctx, Linearizable, n.serving())
}

// Holds fails with ErrRefused if the replica of a shard here is none that answers reads.
func (n *Node) Holds(shard int) error {
	if n.holdsShard(shard) {
		return nil
	}
	return fmt.Errorf("%w: node %s does not hold all shards: shard %d lies on %s; ask a node that holds all, or move the shard here with `strandline cluster move`",
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
