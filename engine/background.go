package engine

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
)

const (
	tick         = time.Second
	maintainTick = time.Minute
	idleFlushes  = 2 // flushes without a sample after which a series leaves the head
)

// each calls fn at every tick until ctx ends or it fails.
func (db *DB) each(ctx context.Context, tick time.Duration, fn func(ctx context.Context) error) {
	for {
		ch, release := db.opts.Clock.After(tick)
		select {
		case <-ctx.Done():
			release()
			return
		case <-ch:
		}
		if err := fn(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, model.ErrUnavailable) {
			_ = db.fail(err) // reported there
			return
		}
	}
}

// background watches the disk and flushes, and maintains beside that, until ctx ends: a merge
// of weeks takes hours, in which memory and log must not grow by all that is written.
func (db *DB) background(ctx context.Context) {
	db.wg.Go(func() { db.each(ctx, maintainTick, db.Maintain) })
	flushed := make([]time.Time, len(db.shards))
	for i := range flushed {
		flushed[i] = db.opts.Clock.Now()
	}
	db.each(ctx, tick, func(ctx context.Context) error {
		db.checkDisk()
		return db.flushDue(ctx, flushed)
	})
}

// flushDue flushes the shards that are due, all but those whose blocks are being changed: they
// are due until they can be flushed, and keep no other waiting.
func (db *DB) flushDue(ctx context.Context, flushed []time.Time) error {
	now, full := db.opts.Clock.Now(), db.headFull()
	for i, s := range db.shards {
		if !full && now.Sub(flushed[i]) < db.opts.FlushInterval {
			continue
		}
		if s.Busy() {
			s.Hasten()
			continue
		}
		if !db.roomToFlush(s) {
			continue
		}
		switch err := db.flushShard(ctx, i); {
		case err == nil:
			flushed[i] = now
		case !errors.Is(err, model.ErrUnavailable):
			return err
		}
	}
	return nil
}

// roomToFlush tells whether the disk has room for what a flush of a shard writes: its samples, and
// some for the series table. One that finds none ends the engine. Without it reads go on, writes are
// refused, and what is in memory is in the log.
func (db *DB) roomToFlush(s *shard.Shard) bool {
	if db.opts.MinFreeBytes < 0 {
		return true
	}
	free, err := db.opts.FS.Free(db.dir)
	return err != nil || free >= uint64(s.Stats().HeadBytes+db.opts.MinFreeBytes/4)
}

// headFull tells whether what can be flushed is more than is to stay in memory.
func (db *DB) headFull() bool {
	var bytes int64
	for _, s := range db.shards {
		if !s.Busy() {
			bytes += s.Stats().HeadBytes
		}
	}
	return bytes > db.opts.HeadBytes
}

// checkDisk turns writes off while the disk is nearly full, and on again.
func (db *DB) checkDisk() {
	if db.opts.MinFreeBytes < 0 {
		return
	}
	free, err := db.opts.FS.Free(db.dir)
	if err != nil {
		db.opts.Logger.Warn("can't tell how much disk is free", "err", err)
		return
	}
	db.brimful.Store(free < uint64(db.opts.MinFreeBytes)/2)
	full := free < uint64(db.opts.MinFreeBytes)
	if was := db.readOnly.Swap(full); was != full {
		db.opts.Logger.Warn("disk space", "read_only", full, "free_bytes", free, "wanted_bytes", db.opts.MinFreeBytes)
	}
}

// Flush writes what is in memory into blocks, shard by shard, and lets go of the
// log that they make superfluous.
func (db *DB) Flush(ctx context.Context) error {
	for i := range db.shards {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := db.flushShard(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) flushShard(ctx context.Context, i int) error {
	if err := db.shards[i].Await(ctx); err != nil { // not with the flushes of all others behind it
		return err
	}
	select {
	case db.flushing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-db.flushing }()
	err := db.committer.Flush(ctx, i)
	if err != nil && ctx.Err() == nil && !errors.Is(err, model.ErrUnavailable) {
		return db.fail(err)
	}
	return err
}

// Maintain does the background work that is due by the clock: retention, dropping
// idle series from memory, merging blocks and moving them through the tiers. The
// engine calls it every minute; tests and tools may.
func (db *DB) Maintain(ctx context.Context) error {
	if err := db.proposeUpkeep(ctx); err != nil && ctx.Err() == nil {
		// Due again the next time. A committer that has failed has told; another node's failure,
		// to which a shard's lead may just have gone, is none of ours.
		db.opts.Logger.Warn("retention cuts and the like were not committed", "err", err)
	}
	if f := db.failure.Load(); f != nil {
		return *f
	}
	now := db.opts.Clock.Now()
	for _, s := range db.shards {
		if err := s.Maintain(ctx, now); err != nil {
			return err
		}
	}
	return nil
}

// proposeUpkeep puts into the log what changes the shards' contents: retention cuts,
// choices among senders, and the dropping of idle series. On a disk that is nearly full only
// retention cuts: they take little room and make more, as long as there is any.
func (db *DB) proposeUpkeep(ctx context.Context) error {
	full := db.writable() != nil
	if db.failure.Load() != nil || full && db.brimful.Load() {
		return nil
	}
	now, err := db.upkeepTime(ctx)
	if err != nil {
		return db.fail(err)
	}
	horizon := db.horizon(now)
	var ops []Op
	for i, s := range db.shards {
		if !db.committer.Leads(i) {
			continue
		}
		var op []byte
		if st := s.Stats(); horizon > st.Cut {
			op = shard.AppendCutOp(nil, horizon)
			ops = append(ops, Op{Shard: i, Bytes: op})
		}
		if full {
			continue
		}
		if t, due := s.DueChoice(now, db.chooseLabel()); due {
			ops = append(ops, Op{Shard: i, Bytes: shard.AppendChooseOp(nil, t, db.pairLabel)})
		}
		if idle := s.Idle(idleFlushes); len(idle) > 0 {
			slices.Sort(idle)
			ops = append(ops, Op{Shard: i, Bytes: shard.AppendDropOp(nil, idle)})
		}
	}
	if len(ops) == 0 {
		return nil
	}
	return db.committer.Commit(ctx, ops)
}

// chooseLabel returns the label by which shards choose among senders, "" if they don't: it
// must be set, and be the one without which the folder places series.
func (db *DB) chooseLabel() string {
	if db.opts.PairLabel != db.pairLabel {
		return ""
	}
	return db.pairLabel
}

// horizon returns the time before which samples are to go, in milliseconds. It
// moves in steps of an hour, since each step is a log entry.
func (db *DB) horizon(now time.Time) int64 {
	h := int64(math.MinInt64)
	if db.opts.Retention > 0 {
		h = now.Add(-db.opts.Retention).Truncate(time.Hour).UnixMilli()
	}
	if db.opts.RetentionBytes > 0 {
		h = max(h, db.horizonBySize())
	}
	return h
}

// horizonBySize returns the end of the oldest blocks that must go for the rest to
// fit the bound.
func (db *DB) horizonBySize() int64 {
	var blocks []shard.BlockRef
	var total int64
	for _, s := range db.shards {
		blocks = append(blocks, s.Blocks()...)
	}
	for _, b := range blocks {
		total += b.Bytes
	}
	slices.SortFunc(blocks, func(a, b shard.BlockRef) int {
		switch {
		case a.MaxT < b.MaxT:
			return -1
		case a.MaxT > b.MaxT:
			return 1
		}
		return 0
	})
	h := int64(math.MinInt64)
	for _, b := range blocks {
		if total <= db.opts.RetentionBytes {
			break
		}
		// Whole buckets go, as those of choices: see shard.Choice.
		h, total = (b.MaxT/pair.Bucket+1)*pair.Bucket, total-b.Bytes
	}
	return h
}
