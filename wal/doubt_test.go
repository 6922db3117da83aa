package wal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// written makes a log whose last batch is large, and returns the last segment's path,
// the offset of that batch and its end. With crash the log was not closed.
func written(t *testing.T, fsys vfs.FS, crash bool) (string, int64, int64) {
	t.Helper()
	l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 3000)
	for i := range data {
		data[i] = byte(i%251) + 1
	}
	var from int64
	for i := range uint64(3) {
		from = l.off
		if err := l.Append([]Entry{{Stream: 1, Index: i + 1, Term: 1, Data: data}}); err != nil {
			t.Fatal(err)
		}
	}
	name, end := path.Join("log", segmentName(l.seq)), l.off
	if !crash {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return name, from, end
}

// opened opens a log and returns its last index and what it doubts.
func opened(t *testing.T, fsys vfs.FS) (uint64, string) {
	t.Helper()
	l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	doubt, err := l.Doubt()
	if err != nil || doubt.Tail != (doubt.Why != "") {
		t.Fatalf("doubt %+v, %v", doubt, err)
	}
	return l.Last(1), doubt.Why
}

func change(t *testing.T, fsys vfs.FS, name string, fn func(f vfs.File)) {
	t.Helper()
	f, err := fsys.OpenReadWrite(name)
	if err != nil {
		t.Fatal(err)
	}
	fn(f)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDoubtOfFlips: a flip of any bit of the last batch is doubted, whether the log was
// closed or its process killed; ClearDoubt ends it.
func TestDoubtOfFlips(t *testing.T) {
	for _, crash := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(1, 2))
		base := vfs.NewMem()
		_, from, end := written(t, base, crash)
		for n := range 8*batchHeader + 50 {
			fsys := base.CrashClone(rng, 100)
			name := path.Join("log", segmentName(1))
			at, bit := from+rng.Int64N(end-from), byte(1)<<rng.IntN(8)
			if n < 8*batchHeader {
				at, bit = from+int64(n/8), 1<<(n%8)
			}
			change(t, fsys, name, func(f vfs.File) {
				b := make([]byte, 1)
				if _, err := f.ReadAt(b, at); err != nil {
					t.Fatal(err)
				}
				b[0] ^= bit
				if _, err := f.WriteAt(b, at); err != nil {
					t.Fatal(err)
				}
			})
			if last, why := opened(t, fsys); last != 2 || why == "" {
				t.Fatalf("flip of %d at %d, crash %v: last %d, doubt %q", bit, at-from, crash, last, why)
			}
			if last, why := opened(t, fsys); last != 2 || why == "" {
				t.Fatalf("again: last %d, doubt %q", last, why)
			}
		}
	}
}

// TestDoubtTwice: when the last batch has been cut as damaged, and that before it is found
// damaged at the next start, while the first doubt lasts, more than one may be missing.
func TestDoubtTwice(t *testing.T) {
	fsys := vfs.NewMem()
	name, last, _ := written(t, fsys, false)
	for i, at := range []int64{last, segmentHeader + (last-segmentHeader)/2} {
		change(t, fsys, name, func(f vfs.File) {
			if _, err := f.WriteAt([]byte{0xff}, at+batchHeader+100); err != nil {
				t.Fatal(err)
			}
		})
		l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		doubt, err := l.Doubt()
		if err != nil || doubt.Why == "" || doubt.Tail != (i == 0) || l.Last(1) != uint64(2-i) {
			t.Errorf("damage %d: doubt %+v, %v, the log ends at %d", i, doubt, err, l.Last(1))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDoubtOfCuts: a file that was cut inside its last batch is doubted.
func TestDoubtOfCuts(t *testing.T) {
	base := vfs.NewMem()
	name, from, end := written(t, base, false)
	rng := rand.New(rand.NewPCG(1, 3))
	for range 50 {
		fsys := base.CrashClone(rng, 100)
		at := from + batchHeader + rng.Int64N(end-from-batchHeader)
		change(t, fsys, name, func(f vfs.File) {
			if err := f.Truncate(at); err != nil {
				t.Fatal(err)
			}
		})
		if last, why := opened(t, fsys); last != 2 || why == "" {
			t.Fatalf("cut at %d: last %d, doubt %q", at-from, last, why)
		}
	}
}

// TestNoDoubtAfterPowerCut: a batch that was never synced raises none, whatever of it
// reached the disk, unless all of it but not its last bytes did.
func TestNoDoubtAfterPowerCut(t *testing.T) {
	torn := 0
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 4))
		fsys := vfs.NewMem()
		var cut *vfs.MemFS
		l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 16, Failpoint: func(name string) {
			if name == "wal-before-sync" {
				cut = fsys.CrashClone(rng, []int{10, 50, 90}[seed%3])
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		var acked uint64
		for i := range 1 + rng.Uint64N(5) {
			data := bytes.Repeat([]byte(fmt.Sprintf("%d-%d.", seed, i)), 1+rng.IntN(500))
			if err := l.Append([]Entry{{Stream: 1, Index: i + 1, Term: 1, Data: data}}); err != nil {
				t.Fatal(err)
			}
			acked = i // of the batches before the one that the cut has in flight
		}
		last, why := opened(t, cut)
		if last < acked || why != "" {
			t.Fatalf("seed %d: %d acknowledged, %d there, doubt %q", seed, acked, last, why)
		}
		if last == acked {
			torn++
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if torn < 50 {
		t.Fatalf("only %d cuts tore a batch", torn)
	}
}

func TestClearDoubt(t *testing.T) {
	fsys := vfs.NewMem()
	l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	for _, fn := range []func() error{func() error { return l.SetDoubt("x") }, l.ClearDoubt, l.ClearDoubt, l.Close} {
		if err := fn(); err != nil {
			t.Fatal(err)
		}
	}
	if _, why := opened(t, fsys); why != "" {
		t.Fatal(why)
	}
}
