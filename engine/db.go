package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/engine/live"
	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

// DB is an open engine. All methods are safe for concurrent use.
type DB struct {
	opts      Options
	dir       string
	pairLabel string // of the folder; see place
	lock      io.Closer
	log       *wal.Log
	shards    []*shard.Shard
	meta      *metaStore
	ages      *ageClock
	committer Committer
	applying  sync.RWMutex // held for reading while the local log applies a group
	appenders appenders
	feeds     *live.Feeds
	collector *collector // nil without a registerer

	damage    chan Damage // blocks in quarantine, for a committer that can repair them
	readOnly  atomic.Bool
	brimful   atomic.Bool // less than half of what makes it read-only is free
	failure   atomic.Pointer[error]
	flushing  chan struct{}   // one flush of a shard at a time; a disk may hold it up for long
	backingUp sync.Mutex      // held by the one backup
	life      context.Context // until Close
	stop      context.CancelFunc
	wg        sync.WaitGroup
	closed    sync.Once
	closeErr  error
}

// Open opens the data folder dir, which it makes if there is none, and replays the
// log. It is all or nothing, and one process at a time: another that has the folder
// open gets an error.
func Open(dir string, o *Options) (_ *DB, err error) {
	db := &DB{dir: dir, damage: make(chan Damage, maxDamage), flushing: make(chan struct{}, 1)}
	if o != nil {
		db.opts = *o
	}
	db.opts.EnsureDefaults()
	if err := db.opts.Validate(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.closeFiles())
		}
	}()
	fsys := db.opts.FS
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	if db.lock, err = fsys.Lock(path.Join(dir, "LOCK")); err != nil {
		return nil, lockError(dir, err, "is another strandline running on it?")
	}
	if err := refuseHalfRestored(fsys, dir); err != nil {
		return nil, err
	}
	if err := db.loadFormat(); err != nil {
		return nil, err
	}
	if db.opts.Replicate != nil {
		db.meta, err = db.openReplicatedMeta()
	} else {
		db.meta, err = openMeta(fsys, dir)
	}
	if err != nil {
		return nil, err
	}
	db.ages = newAgeClock(db.meta.age(), db.opts.Clock.Now())
	if err := db.openShards(); err != nil {
		return nil, err
	}
	db.feeds = live.New(db.shards)
	if db.log, err = wal.Open(path.Join(dir, "wal"), db.logOptions(fsys)); err != nil {
		return nil, err
	}
	if err := db.startCommitter(); err != nil {
		return nil, err
	}
	db.appenders.New = func() any { return db.newAppender() }
	if err := db.registerMetrics(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	db.life, db.stop = ctx, cancel
	db.checkDisk()
	db.wg.Go(func() { db.background(ctx) })
	db.wg.Go(func() { db.scrub(ctx) })
	return db, nil
}

// lockError tells why a data folder could not be locked; what to do if another has it.
func lockError(dir string, err error, ifLocked string) error {
	if errors.Is(err, vfs.ErrLocked) {
		return fmt.Errorf("data folder %s: %w (%s)", dir, err, ifLocked)
	}
	return fmt.Errorf("data folder %s: %w", dir, err)
}

// replicatedPace is the pace of a replica's log: its groups, and the leaders of those that
// others lead, append without knowing of each other, yet one request has entries in many.
const replicatedPace = 4 * time.Millisecond

func (db *DB) logOptions(fsys vfs.FS) *wal.Options {
	o := &wal.Options{FS: fsys, Logger: db.opts.Logger, SegmentSize: db.opts.SegmentBytes, Failpoint: db.opts.Failpoint}
	if db.opts.Replicate != nil {
		o.Pace, o.PutAside = replicatedPace, true
	}
	return o
}

// startCommitter brings the shards to the end of the log and takes writes from there;
// with a Replicate option that is its job.
func (db *DB) startCommitter() (err error) {
	if err := db.checkLogReaches(); err != nil {
		return err
	}
	if db.opts.Replicate == nil {
		if err := db.replay(nil); err != nil {
			return err
		}
		if err := db.log.ClearDoubt(); err != nil { // it was told; there is nobody to ask
			return err
		}
		db.committer = newLocalLog(db)
		return nil
	}
	db.committer, err = db.opts.Replicate(&Replicas{db: db})
	return err
}

// checkLogReaches compares the manifests with the log: one that covers entries which
// the log never had tells of lost files. A replica goes on behind the manifest, in
// doubt of what came after it. The manifest of another replica, installed, stands for
// the log that it makes superfluous.
func (db *DB) checkLogReaches() error {
	for i, s := range db.shards {
		id := wal.StreamID(i)
		m := s.Manifest()
		if base := db.log.Base(id); base > m.Applied && db.opts.Replicate == nil {
			return fmt.Errorf("shard %d: the log begins behind entry %d, but the manifest covers only %d: the shard's files are missing or older", i, base, m.Applied)
		}
		if m.Applied <= max(db.log.Base(id), db.log.Last(id)) && !(m.Installed && db.log.Base(id) < m.Applied) {
			continue
		}
		if !m.Installed {
			err := fmt.Errorf("shard %d: the manifest covers log index %d, but the log ends at %d: log files are missing or were cut",
				i, m.Applied, db.log.Last(id))
			if db.opts.Replicate == nil {
				return err
			}
			db.opts.Logger.Error("acknowledged entries may be missing", "err", err)
			if err := db.log.SetDoubt(err.Error()); err != nil {
				return err
			}
		}
		if err := db.log.Reset(id, m.Applied); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) shardOptions(i int) shard.Options {
	o := shard.Options{
		ID: i, Dir: path.Join(db.dir, shardPath(i)), FS: db.opts.FS, Logger: db.opts.Logger,
		WarmAfter: db.opts.WarmAfter, ColdAfter: db.opts.ColdAfter, Reserve: max(0, db.opts.MinFreeBytes), Failpoint: db.opts.Failpoint,
	}
	if db.opts.Replicate != nil {
		o.Damaged = func(block string, err error) {
			select {
			case db.damage <- Damage{Shard: i, Block: block, Err: err}:
			default: // the next start finds it again
			}
		}
	}
	if db.opts.WarmDir != "" {
		o.WarmDir = path.Join(db.opts.WarmDir, fmt.Sprintf("%03d", i))
	}
	if db.opts.ColdDir != "" {
		o.ColdDir = path.Join(db.opts.ColdDir, fmt.Sprintf("%03d", i))
	}
	return o
}

func (db *DB) openShards() error {
	for i := range db.opts.Shards {
		o := db.shardOptions(i)
		s, err := shard.Open(o)
		var damage *model.CorruptionError
		if db.opts.Replicate != nil && errors.As(err, &damage) {
			db.opts.Logger.Error("a shard can't be opened; it begins empty, and another replica must fill it", "shard", i, "err", err)
			if err = shard.Quarantine(o); err == nil {
				s, err = shard.Open(o)
			}
		}
		if err != nil {
			return err
		}
		db.shards = append(db.shards, s)
	}
	return nil
}

// replayEntry is one log entry on its way to its shard.
type replayEntry struct {
	index uint64
	data  []byte
}

// replay applies the log above each shard's manifest, shards in parallel. Entries that skip,
// if there is one, tells of are none of the engine's.
func (db *DB) replay(skip func(data []byte) bool) error {
	start := db.opts.Clock.Now()
	g, ctx := errgroup.WithContext(context.Background())
	chans := make([]chan replayEntry, len(db.shards))
	spare := make(chan []byte, 4*len(db.shards)) // buffers to use again
	for i, s := range db.shards {
		ch := make(chan replayEntry, 4)
		chans[i] = ch
		g.Go(func() error {
			for e := range ch {
				_, err := s.Apply(e.index, e.data)
				select {
				case spare <- e.data:
				default:
				}
				if err != nil {
					return fmt.Errorf("replay of shard %d, entry %d: %w", i, e.index, err)
				}
			}
			return nil
		})
	}
	n := 0
	first := func(s wal.StreamID) uint64 { return db.shards[s].Applied() + 1 }
	starts := make([]uint64, len(db.shards))
	for i := range starts {
		starts[i] = first(wal.StreamID(i))
	}
	g.Go(func() error {
		defer func() {
			for _, ch := range chans {
				close(ch)
			}
		}()
		from := func(s wal.StreamID) uint64 {
			if int(s) >= len(starts) {
				return math.MaxUint64 // not a shard's
			}
			return starts[s]
		}
		return db.log.Replay(from, func(e *wal.Entry) error {
			if e.Type != 0 || skip != nil && skip(e.Data) { // Raft's own, or the cluster's
				return nil
			}
			n++
			var buf []byte
			select {
			case buf = <-spare:
			default:
			}
			select {
			case chans[e.Stream] <- replayEntry{index: e.Index, data: append(buf[:0], e.Data...)}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	if err := g.Wait(); err != nil {
		return err
	}
	db.opts.Logger.Info("log replayed", "entries", n, "took", db.opts.Clock.Now().Sub(start))
	return nil
}

// writable returns why nothing can be written now, or nil.
func (db *DB) writable() error {
	if f := db.failure.Load(); f != nil {
		return *f
	}
	if db.readOnly.Load() {
		return fmt.Errorf("%w: less than %d bytes of disk are free", model.ErrReadOnly, db.opts.MinFreeBytes)
	}
	return nil
}

// fail stops the engine for good and tells the owner, once.
func (db *DB) fail(cause error) error {
	if !errors.Is(cause, model.ErrFailed) {
		cause = fmt.Errorf("%w: %w", model.ErrFailed, cause)
	}
	if db.failure.CompareAndSwap(nil, &cause) {
		db.opts.Logger.Error("storage has stopped for good", "err", cause)
		if db.opts.OnFailure != nil {
			db.opts.OnFailure(cause)
		}
	}
	return cause
}

// Close stops background work and closes the files. What is in memory stays in the
// log and is replayed by the next Open; call Flush before for a fast one. Idempotent.
func (db *DB) Close() error {
	db.closed.Do(func() {
		db.stop()
		db.backingUp.Lock() // the backup under way ends by itself now
		defer db.backingUp.Unlock()
		err := db.committer.Close()
		db.wg.Wait()
		db.feeds.Close()
		db.unregisterMetrics()
		db.closeErr = errors.Join(err, db.closeFiles())
	})
	return db.closeErr
}

func (db *DB) closeFiles() error {
	var errs []error
	if db.log != nil {
		errs = append(errs, db.log.Close())
	}
	for _, s := range db.shards {
		errs = append(errs, s.Close())
	}
	if db.meta != nil {
		errs = append(errs, db.meta.close())
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Close())
	}
	return errors.Join(errs...)
}
