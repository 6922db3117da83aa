package engine

import (
	"context"
	"fmt"

	"github.com/strandline-db/strandline/shard/model"
)

// ChangeRecords changes small records together, durably: all of them or, with
// model.ErrConflict, none. In a cluster they are the same on all nodes, and this node
// shows the change when it is answered. After a lost leadership a change may meet its
// own first attempt, and be told of a conflict: look before trying again. Safe for
// concurrent use.
func (db *DB) ChangeRecords(ctx context.Context, c *model.RecordChange) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if err := db.writable(); err != nil {
		return err
	}
	return db.committer.ChangeRecords(ctx, c)
}

// Records returns the records whose keys begin with prefix, sorted by key.
func (db *DB) Records(prefix string) []model.Record { return db.meta.list(prefix) }

// WatchRecords tells of changes to records whose keys begin with prefix: after one the
// channel has a message, however many there were. stop ends it.
func (db *DB) WatchRecords(prefix string) (changed <-chan struct{}, stop func()) {
	return db.meta.watch(prefix)
}

// conflict returns the error of a change of which guards failed.
func conflict(c *model.RecordChange, failed []int) error {
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %q", model.ErrConflict, c.Guards[failed[0]].Key)
}

// Conflict returns the error of a change that was answered by a Result of
// Replicas.ChangeRecords; nil if it was done.
func Conflict(c *model.RecordChange, r *Result) error {
	if len(r.Refused) == 0 {
		return nil
	}
	return conflict(c, []int{r.Refused[0].Series})
}

// ChangeRecords implements Committer.
func (l *localLog) ChangeRecords(_ context.Context, c *model.RecordChange) error {
	failed, err := l.meta.change(0, []model.RecordChange{*c})
	if err != nil {
		err = fmt.Errorf("%w: records: %w", model.ErrFailed, err)
		l.onFail(err)
		return err
	}
	return conflict(c, failed[0])
}

// ChangeRecords applies the changes of one entry of the metadata's log, once: what an
// entry did before a restart it does not do again. There is a result for each change,
// and a refusal in it for each guard that failed, by position; see Conflict.
func (r *Replicas) ChangeRecords(index uint64, changes []model.RecordChange) ([]Result, error) {
	failed, err := r.db.meta.change(index, changes)
	if err != nil {
		return nil, err
	}
	out := make([]Result, len(changes))
	for i, guards := range failed {
		for _, g := range guards {
			out[i].Refused = append(out[i].Refused, Refusal{Series: g})
		}
	}
	return out, nil
}

// Records returns the records whose keys begin with prefix, sorted by key.
func (r *Replicas) Records(prefix string) []model.Record { return r.db.meta.list(prefix) }

// WatchRecords is that of DB.
func (r *Replicas) WatchRecords(prefix string) (<-chan struct{}, func()) {
	return r.db.meta.watch(prefix)
}

// MetaImage returns all metadata and records, for InstallMeta on another node.
func (r *Replicas) MetaImage() MetaImage { return r.db.meta.image() }

// Revision is how far changes of records have come here; it grows with each, and is durable.
func (r *Replicas) Revision() uint64 { return r.db.meta.revision() }

// InstallMeta makes this node's metadata and records those of another's image.
func (r *Replicas) InstallMeta(i *MetaImage) error { return r.db.meta.install(i) }
