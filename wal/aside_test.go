package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// entryData is what entry i of a stream holds in every life of the log.
func entryData(s StreamID, i uint64) []byte {
	return fmt.Appendf(nil, "%d-%d-%0*d", s, i, int(i%50)*4, 7)
}

// longLog makes a closed log of many segments, of which the first are gone already.
func longLog(t *testing.T, fsys vfs.FS) {
	t.Helper()
	l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 12})
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 200; i++ {
		var es []Entry
		for s := range StreamID(3) {
			if s == 2 && i > 20 { // one that rests
				continue
			}
			es = append(es, Entry{Stream: s, Index: i, Term: 1, Data: entryData(s, i)})
		}
		errs := []error{l.Append(es)}
		if i%10 == 0 {
			errs = append(errs, l.SetValue(0, "term", fmt.Appendf(nil, "%d", i)))
		}
		if i%40 == 0 {
			errs = append(errs, l.TruncateFront(0, i-30), l.TruncateFront(1, i-20), l.TruncateFront(2, min(i-20, 20)))
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	if l.oldest == 1 {
		t.Fatal("no segment has gone")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkPart verifies that a log holds a part of what longLog wrote, and takes more.
func checkPart(t *testing.T, fsys vfs.FS) {
	t.Helper()
	var lasts [3]uint64
	for life := range 2 {
		l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 12, PutAside: true})
		if err != nil {
			t.Fatal(err)
		}
		doubt, err := l.Doubt()
		if err != nil || doubt.Why == "" || doubt.Tail {
			t.Fatalf("doubt %+v, %v", doubt, err)
		}
		for s := range StreamID(3) {
			if life == 1 && l.Last(s) != lasts[s]+1 {
				t.Fatalf("stream %d ends at %d, not %d, when opened again", s, l.Last(s), lasts[s]+1)
			}
			for i := l.Base(s) + 1; i <= l.Last(s); i++ {
				if e, err := l.Get(s, i); err != nil || string(e.Data) != string(entryData(s, i)) {
					t.Fatalf("stream %d, entry %d: %q, %v", s, i, e.Data, err)
				}
			}
			lasts[s] = l.Last(s)
			if err := l.Append([]Entry{{Stream: s, Index: lasts[s] + 1, Term: 2, Data: entryData(s, lasts[s]+1)}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(l.DropAside(), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if err := Verify(fsys, "log", func(segment string, off int64, err error) { t.Errorf("%s at %d: %v", segment, off, err) }); err != nil {
		t.Fatal(err)
	}
}

// TestPutAside: a log that is damaged anywhere, or lacks a segment, opens with what lies
// before the damage, in doubt, and not at all without PutAside; also after a crash while
// the rest was being put aside.
func TestPutAside(t *testing.T) {
	base := vfs.NewMem()
	longLog(t, base)
	names, err := base.List("log")
	if err != nil {
		t.Fatal(err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return path.Ext(n) != segmentSuffix })
	tried := 0
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 5))
		fsys := base.CrashClone(rng, 100)
		name := path.Join("log", names[rng.IntN(len(names)-1)])
		if seed%10 == 0 {
			if err := fsys.Remove(name); err != nil {
				t.Fatal(err)
			}
		} else {
			change(t, fsys, name, func(f vfs.File) {
				size, err := f.Size()
				if err != nil {
					t.Fatal(err)
				}
				at, b := rng.Int64N(size), make([]byte, 1)
				if _, err := f.ReadAt(b, at); err != nil {
					t.Fatal(err)
				}
				b[0] ^= 1 << rng.IntN(8)
				if _, err := f.WriteAt(b, at); err != nil {
					t.Fatal(err)
				}
			})
		}
		var damage *CorruptionError
		l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 12})
		switch {
		case errors.Is(err, errVersion):
			continue // of another version, it says: nothing is put aside
		case err == nil && seed%10 == 0: // the first segment, of which nothing was needed any more
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		case !errors.As(err, &damage):
			t.Fatalf("seed %d: opened: %v", seed, err)
		}
		tried++
		if seed%3 == 0 {
			fsys = crashAside(t, fsys, rng)
		}
		if l, err = Open("log", &Options{FS: fsys, SegmentSize: 1 << 12, PutAside: true}); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		checkPart(t, fsys)
	}
	if tried < 120 {
		t.Fatalf("only %d logs were damaged", tried)
	}
}

// crashAside returns what is left of a power cut while segments are put aside.
func crashAside(t *testing.T, fsys *vfs.MemFS, rng *rand.Rand) *vfs.MemFS {
	t.Helper()
	var left *vfs.MemFS
	n := rng.IntN(4)
	l, err := Open("log", &Options{FS: fsys, SegmentSize: 1 << 12, PutAside: true, Failpoint: func(name string) {
		if n--; name == "wal-put-aside" && n < 0 && left == nil {
			left = fsys.CrashClone(rng, 50)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left == nil {
		return fsys
	}
	return left
}
