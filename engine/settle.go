package engine

import (
	"context"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/wal"
)

// Settle brings everything that the log holds of the shards into blocks and manifests
// with a mark of the caller's making, and lets the log begin anew behind it: the way of
// a single node's folder into a cluster, and of a lost cluster's into a new one. Each
// shard is whole at every step, so that it can be begun again after a crash. It is for
// a Committer that has not started. skip tells of the entries that the caller has put into
// the log for itself: they change nothing here.
func (r *Replicas) Settle(ctx context.Context, skip func(data []byte) bool, mark func(Mark) Mark) error {
	db := r.db
	if err := db.replay(skip); err != nil {
		return err
	}
	for i, s := range db.shards {
		stream, m := wal.StreamID(i), s.Manifest()
		at := Mark{Applied: m.Applied, Term: m.Term}
		if last := db.log.Last(stream); last > max(m.Applied, db.log.Base(stream)) {
			e, err := db.log.Get(stream, last)
			if err != nil {
				return err
			}
			at = Mark{Applied: last, Term: e.Term}
		}
		if at.Applied == 0 { // Raft takes a configuration at entry 0 for none
			e := wal.Entry{Stream: stream, Index: 1, Term: 1, Data: shard.PayloadHeader(nil)}
			if err := db.log.Append([]wal.Entry{e}); err != nil {
				return err
			}
			at = Mark{Applied: e.Index, Term: e.Term}
		}
		if err := s.Persist(ctx, s.Freeze(), mark(at)); err != nil {
			return err
		}
		if err := db.log.Reset(stream, at.Applied); err != nil {
			return err
		}
	}
	return nil
}
