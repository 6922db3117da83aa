package engine

import (
	"errors"
	"math"
	"path"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestMergeWaitsForRoom: blocks are not merged while the result, beside them, would not leave
// the disk the bytes that are to stay free; they are as soon as there is room.
func TestMergeWaitsForRoom(t *testing.T) {
	f := newRoomFixture(t)
	for i := range int64(3) {
		f.put(start.UnixMilli() + i)
	}
	f.now.Advance(60 * 24 * time.Hour)
	f.maintainWith(roomWanted + 1)
	if st := f.Stats(); st.ReadOnly || st.Blocks != [3]int{3, 0, 0} {
		t.Errorf("without room: %v", st.Blocks)
	}
	f.maintainWith(roomWanted + 1<<20)
	if st := f.Stats(); st.Blocks != [3]int{0, 0, 1} {
		t.Errorf("with room: %v", st.Blocks)
	}
}

// TestRetentionFreesFullDisk: on a disk so full that nothing is written, what is beyond the
// retention still goes, and writing goes on.
func TestRetentionFreesFullDisk(t *testing.T) {
	f := newRoomFixture(t)
	f.put(start.UnixMilli())
	f.now.Advance(400 * 24 * time.Hour)
	f.maintainWith(roomWanted / 4) // not even room for what takes the blocks away
	if st := f.Stats(); st.Blocks != [3]int{1, 0, 0} {
		t.Errorf("on a disk that is full to the brim: %v", st.Blocks)
	}
	f.maintainWith(roomWanted - 1)
	if _, err := f.Append(t.Context(), f.batch(f.now.Now().UnixMilli())); !errors.Is(err, model.ErrReadOnly) {
		t.Fatalf("a write: %v", err)
	}
	if st := f.Stats(); st.Blocks != [3]int{} {
		t.Errorf("beyond the retention: %v", st.Blocks)
	}
	f.maintainWith(roomWanted)
	f.put(f.now.Now().UnixMilli())
}

// roomWanted is how much is to stay free on the disk of a roomFixture.
const roomWanted = 1 << 20

type roomFixture struct {
	*DB
	t   *testing.T
	mem *vfs.MemFS
	now *clock.Manual
}

func newRoomFixture(t *testing.T) *roomFixture {
	t.Helper()
	f := &roomFixture{t: t, mem: vfs.NewMem(), now: clock.NewManual(start)}
	var err error
	f.DB, err = Open("data", &Options{FS: f.mem, Clock: f.now, Shards: 1, MinFreeBytes: roomWanted, FlushInterval: 1000 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	f.stop() // its own upkeep
	f.wg.Wait()
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *roomFixture) batch(at int64) *model.Batch {
	return floats(labels.FromStrings("__name__", "m"), []int64{at}, []float64{1})
}

// put stores a sample and flushes it.
func (f *roomFixture) put(at int64) {
	f.t.Helper()
	if _, err := f.Append(f.t.Context(), f.batch(at)); err != nil {
		f.t.Fatal(err)
	}
	if err := f.Flush(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// maintainWith does the upkeep with so many bytes free.
func (f *roomFixture) maintainWith(free uint64) {
	f.t.Helper()
	f.mem.SetFree(free)
	f.checkDisk()
	if err := f.Maintain(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

// TestUnreadableBlock: a block in which the disk can't read a sector is in quarantine like one
// that is damaged: it is not merged, nor does it stop the engine; the rest is served and merged.
func TestUnreadableBlock(t *testing.T) {
	var bad atomic.Pointer[string]
	fsys := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if name := bad.Load(); op.Kind == vfs.OpRead && name != nil && op.Path == *name {
			return syscall.EIO
		}
		return nil
	})
	db, err := Open("data", &Options{FS: fsys, Clock: clock.NewManual(start), Shards: 1, MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var at [2]int64
	for i := range at { // weeks that turn warm
		at[i] = start.Add(-time.Duration(i+2) * 7 * 24 * time.Hour).UnixMilli()
		if _, err := db.Append(t.Context(), floats(labels.FromStrings("__name__", "m"), at[i:i+1], []float64{1})); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	name := path.Join("data", shardPath(0), db.shards[0].Blocks()[0].Name)
	bad.Store(&name)
	if err := db.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := db.Stats().Blocks; n != [3]int{1, 1, 0} {
		t.Errorf("blocks: %v", n)
	}
	read := func(at int64) error {
		sel, err := db.Select(t.Context(), &model.SelectRequest{MinT: at, MaxT: at})
		if err != nil {
			return err
		}
		defer sel.Close()
		return sel.Series[0].Read(&model.Columns{})
	}
	if err := read(at[0]); !errors.Is(err, syscall.EIO) {
		t.Errorf("what can't be read: %v", err)
	}
	if err := read(at[1]); err != nil {
		t.Errorf("the rest: %v", err)
	}
}

// TestMergeFailsBesideDamage: a merge that fails for want of room stops the engine, also when a
// block that it does not concern is found damaged meanwhile.
func TestMergeFailsBesideDamage(t *testing.T) {
	var write func() error
	var bad atomic.Pointer[string]
	fsys := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if name := bad.Load(); op.Kind == vfs.OpRead && name != nil && op.Path == *name {
			return syscall.EIO
		}
		if fn := write; op.Kind == vfs.OpWrite && fn != nil {
			write = nil
			return fn()
		}
		return nil
	})
	db, err := Open("data", &Options{FS: fsys, Clock: clock.NewManual(start), Shards: 1, MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i := range 2 { // weeks that turn warm, the older one first
		at := start.Add(-time.Duration(i+2) * 7 * 24 * time.Hour).UnixMilli()
		if _, err := db.Append(t.Context(), floats(labels.FromStrings("__name__", "m"), []int64{at}, []float64{1})); err != nil {
			t.Fatal(err)
		}
		if err := db.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s := db.shards[0]
	name := path.Join("data", shardPath(0), s.Blocks()[0].Name)
	write = func() error {
		bad.Store(&name)
		return errors.Join(s.Scrub(t.Context(), nil), syscall.ENOSPC)
	}
	if err := s.Maintain(t.Context(), start); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the merge: %v", err)
	}
	if n := db.Stats().Blocks; n != [3]int{2, 0, 0} {
		t.Errorf("blocks: %v", n)
	}
}

// TestFlushOnFullDisk: on a disk without room a flush that is due waits, rather than end the
// engine: reads go on, writes are refused, and all is flushed once there is room.
func TestFlushOnFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	fsys := vfs.NewFault(mem, func(op vfs.Op) error {
		if free, err := mem.Free("data"); err == nil && free == 0 && op.Kind == vfs.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	db, err := Open("data", &Options{FS: fsys, Clock: clock.NewManual(start), Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	b := func(i int64) *model.Batch {
		return floats(labels.FromStrings("__name__", "m"), []int64{start.UnixMilli() + i}, []float64{1})
	}
	if _, err := db.Append(t.Context(), b(0)); err != nil {
		t.Fatal(err)
	}
	due := make([]time.Time, 1) // since long
	mem.SetFree(0)
	db.checkDisk()
	if err := db.flushDue(t.Context(), due); err != nil || !due[0].IsZero() {
		t.Fatalf("the flush: %v", err)
	}
	if _, err := db.Append(t.Context(), b(1)); !errors.Is(err, model.ErrReadOnly) {
		t.Errorf("a write: %v", err)
	}
	sel, err := db.Select(t.Context(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil || len(sel.Series) != 1 {
		t.Fatal(err)
	}
	defer sel.Close()
	if err := sel.Series[0].Read(&model.Columns{}); err != nil {
		t.Errorf("a read: %v", err)
	}
	mem.SetFree(1 << 40)
	db.checkDisk()
	if err := db.flushDue(t.Context(), due); err != nil || db.Stats().Blocks[0] != 1 {
		t.Errorf("the flush once there is room: %v, blocks %v", err, db.Stats().Blocks)
	}
	if _, err := db.Append(t.Context(), b(1)); err != nil {
		t.Errorf("a write: %v", err)
	}
}
