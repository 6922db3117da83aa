package engine

import (
	"context"
	"time"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

// Replicas is what a replicated Committer works on: the log, and this node's replica
// of each shard.
type Replicas struct{ db *DB }

// Log returns the log. Stream i is that of shard i.
func (r *Replicas) Log() *wal.Log { return r.db.log }

// Len returns the number of shards.
func (r *Replicas) Len() int { return len(r.db.shards) }

// Shard returns the replica of shard i.
func (r *Replicas) Shard(i int) *Replica {
	return &Replica{s: r.db.shards[i], log: r.db.log, id: wal.StreamID(i)}
}

// Fail stops the engine for good, as a failed fsync does.
func (r *Replicas) Fail(err error) { _ = r.db.fail(err) }

// ReadOnly tells whether the disk is nearly full.
func (r *Replicas) ReadOnly() bool { return r.db.readOnly.Load() }

// Now returns the time by this node's clock.
func (r *Replicas) Now() time.Time { return r.db.opts.Clock.Now() }

// Damaged gives the blocks that are found damaged, each once.
func (r *Replicas) Damaged() <-chan Damage { return r.db.damage }

// StoreMetadata stores metadata of metrics durably. Known ones are skipped.
func (r *Replicas) StoreMetadata(mds []model.Metadata) error {
	fresh := r.db.meta.fresh(mds)
	if len(fresh) == 0 {
		return nil
	}
	return r.db.meta.put(fresh)
}

// Reader reads the replicas here of some shards.
func (r *Replicas) Reader(shards []int) model.Reader {
	p := &part{db: r.db}
	for _, i := range shards {
		p.shards = append(p.shards, r.db.shards[i])
	}
	return p
}

// Subscribe is DB.Subscribe for the replicas here of some shards.
func (r *Replicas) Subscribe(ctx context.Context, shards []int, req *model.FeedRequest) (model.Feed, error) {
	f, err := r.db.feeds.SubscribeTo(ctx, shards, req)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Replica is this node's copy of one shard.
type Replica struct {
	s   *shard.Shard
	log *wal.Log
	id  wal.StreamID
}

// ErrSuperseded is that of Persist after an Install.
var ErrSuperseded = shard.ErrSuperseded

// Cut and Mark are those of a flush in two steps; see Freeze and Persist.
type (
	Cut      = shard.Cut
	Mark     = shard.Mark
	Manifest = shard.Manifest
)

// Apply applies one committed log entry. Entries come in order of index, each once,
// from one goroutine.
func (r *Replica) Apply(index uint64, payload []byte) ([]Result, error) {
	return r.s.Apply(index, payload)
}

// Freeze cuts the head at the last applied entry, quickly. Persist or Unfreeze follows.
func (r *Replica) Freeze() *Cut { return r.s.Freeze() }

// Unfreeze puts back what Freeze took.
func (r *Replica) Unfreeze(c *Cut) { r.s.Unfreeze(c) }

// Persist makes a cut durable as blocks and a manifest that records m.
func (r *Replica) Persist(ctx context.Context, c *Cut, m Mark) error { return r.s.Persist(ctx, c, m) }

// Sound tells whether no block is known to be damaged.
func (r *Replica) Sound() bool { return r.s.Sound() }

// Offer is what another replica needs; see Install.
type Offer = shard.Offer

// Fetch reads pieces of another replica's blocks; see Install.
type Fetch = shard.Fetch

// Applied returns the last entry that was applied.
func (r *Replica) Applied() uint64 { return r.s.Applied() }

// Offer makes an offer of the durable state, to be released.
func (r *Replica) Offer(ctx context.Context) (*Offer, error) { return r.s.Offer(ctx) }

// OfferSound is Offer for Repair: damaged blocks are in it by name alone.
func (r *Replica) OfferSound(ctx context.Context) (*Offer, error) { return r.s.OfferSound(ctx) }

// ReadBlock appends to dst a piece of a block that an open offer names.
func (r *Replica) ReadBlock(dst []byte, name string, off int64, n int) ([]byte, error) {
	return r.s.ReadBlock(dst, name, off, n)
}

// Install makes this replica equal to another's offer and lets its log go on behind m.
func (r *Replica) Install(ctx context.Context, data []byte, m Mark, fetch shard.Fetch) error {
	if err := r.s.Install(ctx, data, m, fetch); err != nil {
		return err
	}
	return r.log.Reset(r.id, m.Applied)
}

// ErrBehind is that of Repair when one of the replicas must first come further.
var ErrBehind = shard.ErrBehind

// Repair replaces a damaged block by blocks of another replica's offer.
func (r *Replica) Repair(ctx context.Context, block string, data []byte, fetch shard.Fetch) error {
	return r.s.Repair(ctx, block, data, fetch)
}

// Hash returns a hash of everything the replica holds, and the entry it has come to.
func (r *Replica) Hash(ctx context.Context) (index, sum uint64, err error) { return r.s.Hash(ctx) }

// BeginHash fixes, quickly, what finish hashes, which is to be called once.
func (r *Replica) BeginHash() (finish func(context.Context) (index, sum uint64, err error)) {
	return r.s.BeginHash()
}

// Wipe makes the replica empty and deletes its files. The caller resets the log.
func (r *Replica) Wipe(ctx context.Context) error { return r.s.Wipe(ctx) }

// Bytes returns how much the replica takes, on disk and in memory.
func (r *Replica) Bytes() int64 {
	s := r.s.Stats()
	n := s.HeadBytes
	for _, b := range s.BlockBytes {
		n += b
	}
	return n
}

// Manifest returns the durable state; the caller must not change what it points to.
func (r *Replica) Manifest() Manifest { return r.s.Manifest() }

// JoinPayload makes the content of one log entry from operations: first nil, then
// one operation after another.
func JoinPayload(dst []byte, op []byte) []byte {
	if len(dst) == 0 {
		dst = shard.PayloadHeader(dst)
	}
	return append(dst, op...)
}

// AppendHistogram encodes a histogram as a shard's log does, without its times.
func AppendHistogram(dst []byte, h *model.HistogramSample) []byte {
	return shard.AppendHistogram(dst, h)
}

// DecodeHistogram is the inverse of AppendHistogram, for a sample at t with the start time st.
func DecodeHistogram(b []byte, t, st int64) (model.HistogramSample, error) {
	return shard.DecodeHistogram(b, t, st)
}
