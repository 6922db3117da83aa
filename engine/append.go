package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
)

// appender is the scratch of one Append.
type appender struct {
	items   [][]shard.Item // by shard
	ops     []shard.Op     // by shard
	commits []Op
}

func (db *DB) newAppender() *appender {
	return &appender{items: make([][]shard.Item, len(db.shards)), ops: make([]shard.Op, len(db.shards))}
}

func (a *appender) reset() {
	for i := range a.items {
		clear(a.items[i])
		a.items[i] = a.items[i][:0]
		a.ops[i].Reset()
	}
	clear(a.commits)
	a.commits = a.commits[:0]
}

// appenders hands out scratch. One whose commit was not waited for is not put back.
type appenders struct{ sync.Pool }

// maxTime bounds timestamps, so that arithmetic on them can't overflow.
const maxTime = math.MaxInt64 / 4

// Append stores a batch durably: when it returns without an error, every sample
// that is not named in the result's Rejected survives a crash of the machine. A
// rejected series does not hold back the rest. An error (model.ErrOverloaded,
// ErrReadOnly, ErrFailed, ErrClosed) means that it is not known what was stored;
// sending the batch again is harmless.
//
// The batch and what it points to must not change until Append returns, and may be
// reused then. Safe for concurrent use.
func (db *DB) Append(ctx context.Context, b *model.Batch) (model.AppendResult, error) {
	var res model.AppendResult
	if err := db.writable(); err != nil {
		return res, err
	}
	if err := db.describe(ctx, b.Metadata); err != nil {
		return res, err
	}
	a := db.appenders.Get().(*appender)
	a.reset()
	for i := range b.Series {
		key := b.Series[i].Key
		hash := model.HashKey(key)
		k := db.place(key, hash)
		a.items[k] = append(a.items[k], shard.Item{Series: i, Hash: hash, Key: key})
	}
	lim := db.limits()
	for tries := 0; a.pending(); tries++ {
		db.encode(a, b, &lim, &res)
		if err := db.commit(ctx, a, &lim); err != nil {
			return model.AppendResult{}, err // a is lost to the pool: the commit may still read it
		}
		a.settle(&lim, &res)
		if tries == 3 && a.pending() {
			return res, fmt.Errorf("%w: series were dropped as fast as they were sent", model.ErrOverloaded)
		}
	}
	db.appenders.Put(a)
	slices.SortStableFunc(res.Rejected, func(x, y model.Rejection) int { return x.Series - y.Series })
	res.Rejected = slices.CompactFunc(res.Rejected, func(x, y model.Rejection) bool { return x.Series == y.Series })
	return res, nil
}

// describe stores what is new of the metadata.
func (db *DB) describe(ctx context.Context, mds []model.Metadata) error {
	fresh := db.meta.fresh(mds)
	if len(fresh) == 0 {
		return nil
	}
	return db.committer.Describe(ctx, fresh)
}

func (a *appender) pending() bool {
	return slices.ContainsFunc(a.items, func(is []shard.Item) bool { return len(is) > 0 })
}

func (db *DB) limits() shard.Limits {
	now := db.opts.Clock.Now()
	lim := shard.Limits{MinT: -maxTime, MaxT: maxTime}
	if db.opts.Retention > 0 {
		lim.MinT = max(lim.MinT, db.ages.now(now).Add(-db.opts.Retention).UnixMilli())
	}
	if db.opts.MaxFuture > 0 {
		lim.MaxT = min(lim.MaxT, now.Add(db.opts.MaxFuture).UnixMilli())
	}
	if n := len(db.shards); db.opts.MaxSeries > 0 {
		lim.MaxSeries = (db.opts.MaxSeries + n - 1) / n
	}
	return lim
}

// encode turns the pending items into operations, one a shard. Series whose label
// bytes are unusual are put into canonical form, which may belong to another shard.
func (db *DB) encode(a *appender, b *model.Batch, lim *shard.Limits, res *model.AppendResult) {
	var canon []shard.Item
	for k, s := range db.shards {
		for _, it := range s.Encode(&a.ops[k], b, a.items[k], lim) {
			key, err := model.CanonicalKey(nil, it.Key)
			if err != nil {
				res.Rejected = append(res.Rejected, model.Rejection{Series: it.Series, Err: err})
				continue
			}
			it.Key, it.Hash = key, model.HashKey(key)
			canon = append(canon, it)
		}
	}
	for _, it := range canon {
		k := db.place(it.Key, it.Hash)
		db.shards[k].Encode(&a.ops[k], b, []shard.Item{it}, lim)
	}
}

func (db *DB) commit(ctx context.Context, a *appender, lim *shard.Limits) error {
	a.commits = a.commits[:0]
	for k := range a.ops {
		if !a.ops[k].Empty() {
			a.commits = append(a.commits, Op{Shard: k, Bytes: a.ops[k].Bytes(lim)})
		}
	}
	if len(a.commits) == 0 {
		return nil
	}
	return db.committer.Commit(ctx, a.commits)
}

// settle counts what was stored and makes pending again what must be sent with labels.
func (a *appender) settle(lim *shard.Limits, res *model.AppendResult) {
	for k := range a.items {
		a.items[k] = a.items[k][:0]
	}
	for i := range a.commits {
		c := &a.commits[i]
		res.Applied = append(res.Applied, model.ShardIndex{Shard: c.Shard, Index: c.Index})
		a.items[c.Shard] = append(a.items[c.Shard], a.ops[c.Shard].Outcome(&c.Result, lim, res)...)
	}
	for k := range a.ops {
		if a.ops[k].Empty() {
			res.Rejected = append(res.Rejected, a.ops[k].Rejected...)
		}
		a.ops[k].Reset()
	}
}
