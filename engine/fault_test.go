package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
	"github.com/strandline-db/strandline/wal/vfs"
)

// ledger is what was sent and what of it was acknowledged: series -> time -> bits.
type ledger struct {
	mu          sync.Mutex // of acked while work runs, for what else looks then
	acked, sent map[string]map[int64]uint64
}

func newLedger() *ledger {
	return &ledger{acked: map[string]map[int64]uint64{}, sent: map[string]map[int64]uint64{}}
}

func note(m map[string]map[int64]uint64, b *model.Batch) {
	for _, s := range b.Series {
		k := model.KeyLabels(s.Key).String()
		if m[k] == nil {
			m[k] = map[int64]uint64{}
		}
		for i := s.From; i < s.To; i++ {
			m[k][b.T[i]] = math.Float64bits(b.V[i])
		}
	}
}

// judge reports what was lost (acknowledged and not there) and what is phantom (there
// and never sent).
func (l *ledger) judge(got map[string]*model.Columns) error {
	have := map[string]map[int64]uint64{}
	for k, c := range got {
		have[k] = map[int64]uint64{}
		for i, t := range c.T {
			have[k][t] = math.Float64bits(c.V[i])
			if want, ok := l.sent[k][t]; !ok || want != math.Float64bits(c.V[i]) {
				return fmt.Errorf("phantom: %s at %d", k, t)
			}
		}
	}
	for k, samples := range l.acked {
		for t := range samples {
			if _, ok := have[k][t]; !ok {
				return fmt.Errorf("lost: %s at %d", k, t)
			}
		}
	}
	return nil
}

// batchOf makes a batch whose samples no other batch has.
func batchOf(rng *rand.Rand, n int) *model.Batch {
	b := &model.Batch{}
	for range 1 + rng.IntN(3) {
		s := model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "m", "s", fmt.Sprint(rng.IntN(5)))), From: len(b.T)}
		for i := range 1 + rng.IntN(40) {
			b.T = append(b.T, start.UnixMilli()+int64(n)*100_000+int64(len(b.T))*7+int64(i))
			b.V = append(b.V, rng.Float64())
		}
		s.To = len(b.T)
		b.Series = append(b.Series, s)
	}
	return b
}

func memOptions(fsys vfs.FS) *Options {
	return &Options{FS: fsys, Clock: clock.NewManual(start), Shards: 2, Retention: -1, MinFreeBytes: -1, SegmentBytes: 8192}
}

// work runs appends, flushes and upkeep until something fails, and says whether the
// engine opened at all.
func (l *ledger) work(rng *rand.Rand, o *Options, ops int, between func(n int)) (opened bool, err error) {
	db, err := Open("data", o)
	if err != nil {
		return false, err
	}
	defer func() {
		// After a fault Close may fail as well; the first error is what counts.
		if cerr := db.Close(); err == nil {
			err = cerr
		}
	}()
	for n := range ops {
		b := batchOf(rng, n)
		note(l.sent, b)
		res, err := db.Append(context.Background(), b)
		if err != nil {
			return true, err
		}
		if res.Samples != len(b.T) {
			return true, fmt.Errorf("%d of %d samples written", res.Samples, len(b.T))
		}
		l.mu.Lock()
		note(l.acked, b)
		l.mu.Unlock()
		switch rng.IntN(8) {
		case 0:
			err = db.Flush(context.Background())
		case 1:
			err = db.Maintain(context.Background())
		}
		if err != nil {
			return true, err
		}
		between(n)
	}
	return true, nil
}

func judgeFolder(fsys vfs.FS, l *ledger) error { return judgeDir(fsys, "data", l) }

func judgeDir(fsys vfs.FS, dir string, l *ledger) error { return judgeOpened(memOptions(fsys), dir, l) }

func judgeOpened(o *Options, dir string, l *ledger) error {
	db, err := Open(dir, o)
	if err != nil {
		return fmt.Errorf("does not open: %w", err)
	}
	defer db.Close()
	sel, err := db.Select(context.Background(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
	if err != nil {
		return err
	}
	defer sel.Close()
	got := map[string]*model.Columns{}
	for _, s := range sel.Series {
		c := &model.Columns{}
		if err := s.Read(c); err != nil {
			return err
		}
		got[s.Labels().String()] = c
	}
	if err := l.judge(got); err != nil {
		return err
	}
	db.Close()
	var faults error
	err = Check(dir, o, func(p string, err error) { faults = errors.Join(faults, fmt.Errorf("%s: %w", p, err)) })
	return errors.Join(err, faults)
}

// TestPowerCut cuts the power after every operation of a run, keeping between none and
// all of what was not synced: it opens every time, nothing is lost or made up.
func TestPowerCut(t *testing.T) {
	states := 0
	for seed := range uint64(70) {
		rng := rand.New(rand.NewPCG(seed, 11))
		mem := vfs.NewMem()
		l := newLedger()
		if _, err := l.work(rng, memOptions(mem), 30, func(n int) {
			state := mem.CrashClone(rng, []int{0, 10, 50, 90, 100}[rng.IntN(5)])
			if err := judgeFolder(state, l); err != nil {
				t.Fatalf("seed %d, after operation %d: %v", seed, n, err)
			}
			states++
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d states", states)
}

// TestFailEveryOperation fails the Nth operation of the file system, for every N of a
// run: nothing panics, what was acknowledged is there after a power cut and a start on
// a sound disk, and after a failed sync nothing more is acknowledged.
func TestFailEveryOperation(t *testing.T) {
	faults := map[string]error{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "short": &vfs.ShortWrite{Bytes: 7, Err: syscall.ENOSPC}}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			for at := uint64(1); ; at++ {
				mem := vfs.NewMem()
				fired := false
				l := newLedger()
				fsys := vfs.NewFault(mem, func(op vfs.Op) error {
					var short *vfs.ShortWrite
					if op.N != at || errors.As(fault, &short) && op.Kind != vfs.OpWrite {
						return nil
					}
					fired = true
					return fault
				})
				rng := rand.New(rand.NewPCG(5, 5))
				_, err := l.work(rng, memOptions(fsys), 25, func(int) {})
				if err == nil && !fired && at > 2000 {
					t.Fatal("the run never ends")
				}
				cut := mem.CrashClone(rng, 50)
				if err := judgeFolder(cut, l); err != nil {
					t.Fatalf("operation %d: %v", at, err)
				}
				if !fired && err == nil && name != "short" || at > 600 {
					if at < 100 {
						t.Fatalf("only %d operations", at)
					}
					return
				}
			}
		})
	}
}

// TestRestartThenPowerCut lets the Nth operation of the file system fail, for every N of a
// run, as if the process had been killed there, starts on the same disk, whose page cache
// shows what may never have reached it, goes on, and cuts the power: nothing is lost.
func TestRestartThenPowerCut(t *testing.T) {
	for at := uint64(1); at <= 600; at++ {
		mem, rng, l, fired := vfs.NewMem(), rand.New(rand.NewPCG(5, 6)), newLedger(), false
		fsys := vfs.NewFault(mem, func(op vfs.Op) error {
			if op.N != at {
				return nil
			}
			fired = true
			return syscall.EIO
		})
		o := memOptions(fsys)
		o.WarmDir, o.ColdDir = "warm", "cold"
		_, err := l.work(rng, o, 25, func(int) {})
		if err == nil && !fired {
			if at < 100 {
				t.Fatalf("only %d operations", at)
			}
			return
		}
		if err := l.again(rng, mem); err != nil {
			t.Fatalf("operation %d failed: %v", at, err)
		}
		for _, percent := range []int{0, 50} {
			o := memOptions(mem.CrashClone(rng, percent))
			o.WarmDir, o.ColdDir = "warm", "cold"
			if err := judgeOpened(o, "data", l); err != nil {
				t.Fatalf("operation %d failed, then a restart and a power cut with %d %% kept: %v", at, percent, err)
			}
		}
	}
}

// again starts on what another life has left and writes a little, flushing or not.
func (l *ledger) again(rng *rand.Rand, fsys vfs.FS) (err error) {
	o := memOptions(fsys)
	o.WarmDir, o.ColdDir = "warm", "cold"
	db, err := Open("data", o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if rng.IntN(2) == 0 {
		if err := db.Flush(context.Background()); err != nil {
			return err
		}
	}
	b := batchOf(rng, 1000)
	note(l.sent, b)
	if _, err := db.Append(context.Background(), b); err != nil {
		return err
	}
	note(l.acked, b)
	return nil
}

// TestBitFlips flips one bit of any file: the folder does not open, or a read fails,
// or what it says is right (a flip in the last batch of the log reads as a torn tail).
func TestBitFlips(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	mem := vfs.NewMem()
	l := newLedger()
	if _, err := l.work(rng, memOptions(mem), 40, func(int) {}); err != nil {
		t.Fatal(err)
	}
	var files []string
	var walk func(dir string)
	walk = func(dir string) {
		names, err := mem.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			p := dir + "/" + n
			if st, err := mem.Stat(p); err == nil && st.IsDir() {
				walk(p)
			} else if n != "LOCK" {
				files = append(files, p)
			}
		}
	}
	walk("data")
	detected := 0
	for range 500 {
		state := mem.CrashClone(rng, 100)
		name := files[rng.IntN(len(files))]
		flip(t, state, name, rng)
		err := judgeFolder(state, l)
		switch {
		case err == nil: // a byte that is not live: preallocated, or behind the end
		case strings.HasPrefix(err.Error(), "phantom"):
			t.Fatalf("%s: a wrong value was served: %v", name, err)
		case strings.HasPrefix(err.Error(), "lost") && !strings.HasPrefix(name, "data/wal/"):
			// Only the last batch of the log may go without an error: it reads as torn.
			t.Fatalf("%s: samples are missing and nothing said so: %v", name, err)
		default:
			detected++
		}
	}
	if detected < 100 {
		t.Fatalf("only %d of 500 flips were noticed", detected)
	}
}

func flip(t *testing.T, fsys vfs.FS, name string, rng *rand.Rand) {
	t.Helper()
	f, err := fsys.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil || n == 0 {
		return
	}
	b, at := make([]byte, 1), rng.Int64N(n)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << rng.IntN(8)
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestTiers carries data from the head through all tiers to its end, with right
// answers at every stage and across restarts.
func TestTiers(t *testing.T) {
	f := newFixture(t, Options{Retention: 90 * 24 * time.Hour, FlushInterval: time.Hour})
	want := map[string]map[int64]uint64{}
	send := func() {
		at := f.clock.Now().UnixMilli()
		for s := range 4 {
			ls := labels.FromStrings("__name__", "m", "s", fmt.Sprint(s))
			b := floats(ls, []int64{at, at + 1000}, []float64{float64(at % 977), float64(s) / 10})
			if res := f.append(b); res.Samples != 2 {
				t.Fatalf("%+v", res)
			}
			note(want, b)
		}
	}
	seen := [3]bool{}
	for day := range 120 {
		if day < 20 {
			send()
		}
		f.flush()
		if err := f.Maintain(context.Background()); err != nil {
			t.Fatal(err)
		}
		st := f.Stats()
		for tier, n := range st.Blocks {
			seen[tier] = seen[tier] || n > 0
		}
		for k, samples := range want {
			for at := range samples {
				if at < st.Cut {
					delete(samples, at)
				}
			}
			if len(samples) == 0 {
				delete(want, k)
			}
		}
		compare(t, f.read(), want)
		if day%10 == 9 {
			f.close()
			f.open()
			compare(t, f.read(), want)
		}
		f.clock.Advance(24 * time.Hour)
	}
	if seen != [3]bool{true, true, true} {
		t.Fatalf("tiers seen: %v", seen)
	}
	if st := f.Stats(); st.Blocks != [3]int{} || len(want) != 0 {
		t.Fatalf("something is left at the end: %+v", st)
	}
}
