package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

type ref struct {
	s StreamID
	i uint64
}

// contents replays the whole log.
func contents(t *testing.T, l *Log) map[ref]string {
	t.Helper()
	got := map[ref]string{}
	last := map[StreamID]uint64{}
	if err := l.Replay(func(StreamID) uint64 { return 0 }, func(e *Entry) error {
		if p := last[e.Stream]; p != 0 && e.Index != p+1 {
			return fmt.Errorf("stream %d: %d follows %d", e.Stream, e.Index, p)
		}
		last[e.Stream] = e.Index
		got[ref{e.Stream, e.Index}] = string(e.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func equal(t *testing.T, what string, got, want map[ref]string) {
	t.Helper()
	for k, v := range want {
		if got[k] != v {
			t.Fatalf("%s: stream %d index %d: got %q, want %q", what, k.s, k.i, got[k], v)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d entries, want %d", what, len(got), len(want))
	}
}

func open(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(dir, &Options{SegmentSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestModel runs random operations, with restarts, against a map.
func TestModel(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		dir := t.TempDir()
		l := open(t, dir)
		want := map[ref]string{}
		base, last := map[StreamID]uint64{}, map[StreamID]uint64{}
		for op := range 300 {
			// Stream 3 is quiet: it must not pin segments.
			s := StreamID(rng.IntN(3))
			if rng.IntN(60) == 0 {
				s = 3
			}
			switch k := rng.IntN(20); {
			case k < 14:
				var es []Entry
				for range 1 + rng.IntN(3) {
					last[s]++
					d := fmt.Sprintf("%d-%d-%d-%s", seed, op, last[s], bytes.Repeat([]byte{'x'}, rng.IntN(300)))
					es = append(es, Entry{Stream: s, Index: last[s], Term: 1, Data: []byte(d)})
					want[ref{s, last[s]}] = d
				}
				if err := l.Append(es); err != nil {
					t.Fatal(err)
				}
			case k < 16 && s != 3:
				upto := base[s] + uint64(rng.IntN(int(last[s]-base[s])+1))
				if err := l.TruncateFront(s, upto); err != nil {
					t.Fatal(err)
				}
				for ; base[s] < upto; base[s]++ {
					delete(want, ref{s, base[s] + 1})
				}
			case k == 16 && last[s] > base[s]:
				from := base[s] + 1 + uint64(rng.IntN(int(last[s]-base[s])))
				if err := l.TruncateBack(s, from); err != nil {
					t.Fatal(err)
				}
				for ; last[s] >= from; last[s]-- {
					delete(want, ref{s, last[s]})
				}
			case k == 17 && rng.IntN(4) == 0:
				b := last[s] + uint64(rng.IntN(50))
				if err := l.Reset(s, b); err != nil {
					t.Fatal(err)
				}
				for i := base[s]; i <= last[s]; i++ {
					delete(want, ref{s, i})
				}
				base[s], last[s] = b, b
			case k == 18:
				if err := l.SetValue(s, "term", binary.LittleEndian.AppendUint64(nil, uint64(op))); err != nil {
					t.Fatal(err)
				}
			case k == 19:
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if err := Verify(l.fs, dir, func(p string, off int64, err error) { t.Fatal(p, off, err) }); err != nil {
					t.Fatal(err)
				}
				l = open(t, dir)
			}
			for id, b := range base {
				if l.Base(id) > b && last[id] != l.Last(id) || l.Last(id) != last[id] {
					t.Fatalf("seed %d op %d: stream %d is %d to %d, want %d to %d", seed, op, id, l.Base(id), l.Last(id), b, last[id])
				}
			}
		}
		equal(t, fmt.Sprint("seed ", seed), contents(t, l), want)
		for k, v := range want {
			if e, err := l.Get(k.s, k.i); err != nil || string(e.Data) != v {
				t.Fatalf("seed %d: Get %v: %v", seed, k, err)
			}
		}
	}
}

// TestGroupCommit appends from many goroutines, each its own stream.
func TestGroupCommit(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir)
	var wg sync.WaitGroup
	want := map[ref]string{}
	for s := range StreamID(8) {
		for i := uint64(1); i <= 50; i++ {
			want[ref{s, i}] = fmt.Sprint(s, "/", i)
		}
		wg.Go(func() {
			for i := uint64(1); i <= 50; i++ {
				if err := l.Append([]Entry{{Stream: s, Index: i, Term: 1, Data: []byte(fmt.Sprint(s, "/", i))}}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	equal(t, "after restart", contents(t, open(t, dir)), want)
}

// twoBatches writes a log of one segment and returns its file and where the last
// batch begins and ends.
func twoBatches(t *testing.T, dir string) (file string, from, to int64) {
	l := open(t, dir)
	for i := uint64(1); i <= 3; i++ {
		if i == 3 {
			from = l.off
		}
		if err := l.Append([]Entry{{Stream: 1, Index: i, Term: 1, Data: bytes.Repeat([]byte{byte(i)}, 40)}}); err != nil {
			t.Fatal(err)
		}
	}
	to = l.off
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, segmentName(1)), from, to
}

// TestCutAtEveryByte cuts the log at every byte of its last batch: what was
// acknowledged before it stays, and the index can be written again.
func TestCutAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	file, from, to := twoBatches(t, dir)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := from; cut < to; cut++ {
		for _, zeros := range []bool{false, true} {
			b := bytes.Clone(whole[:cut])
			if zeros {
				b = append(b, make([]byte, len(whole)-int(cut))...)
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, dir)
			if l.Last(1) != 2 {
				t.Fatalf("cut at %d: last is %d", cut, l.Last(1))
			}
			if err := l.Append([]Entry{{Stream: 1, Index: 3, Term: 2, Data: []byte("new")}}); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir)
			if e, err := l.Get(1, 3); err != nil || string(e.Data) != "new" {
				t.Fatalf("cut at %d: %v %v", cut, e, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestFlipEveryBit flips each bit up to the end of the last batch. In the last batch
// it reads as a torn tail; before it the log must not open.
func TestFlipEveryBit(t *testing.T) {
	dir := t.TempDir()
	file, from, to := twoBatches(t, dir)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := range to {
		b := bytes.Clone(whole)
		b[at] ^= 1 << (at % 8)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(dir, &Options{SegmentSize: 4096})
		if at < from {
			var damage *CorruptionError
			if err == nil || (!errors.As(err, &damage) && !errors.Is(err, errVersion)) {
				t.Fatalf("a flip at byte %d was not detected: %v", at, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("flip at %d: %v", at, err)
		}
		if l.Last(1) != 2 || l.Stats().TornTails != 1 {
			t.Fatalf("flip at %d: last %d, %+v", at, l.Last(1), l.Stats())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCutsCross: a cut of the front that waits behind a cut of the back takes no index with it
// that is to come again.
func TestCutsCross(t *testing.T) {
	l := open(t, t.TempDir())
	for i := uint64(1); i <= 10; i++ {
		if err := l.Append([]Entry{{Stream: 1, Index: i, Term: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	l.write <- struct{}{} // so that both wait for the same write
	var wg sync.WaitGroup
	gathered := func(fn func() error) {
		size := func() int { l.mu.Lock(); defer l.mu.Unlock(); return len(l.mu.next.buf) }
		had := size()
		wg.Go(func() {
			if err := fn(); err != nil {
				t.Error(err)
			}
		})
		for size() == had {
			runtime.Gosched()
		}
	}
	gathered(func() error { return l.TruncateBack(1, 5) })
	gathered(func() error { return l.TruncateFront(1, 8) })
	l.unlock()
	wg.Wait()
	if err := l.Append([]Entry{{Stream: 1, Index: 5, Term: 2, Data: []byte("again")}}); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Get(1, 5); err != nil || string(e.Data) != "again" {
		t.Errorf("%+v, %v; the log holds (%d, %d]", e, err, l.Base(1), l.Last(1))
	}
}

func FuzzBatch(f *testing.F) {
	b := appendEntry(nil, &Entry{Stream: 1, Index: 2, Term: 3, Data: []byte("abc")})
	b = appendValue(appendControl(b, kindFront, 1, 2), 1, "k", []byte("v"))
	f.Add(b)
	f.Fuzz(func(_ *testing.T, body []byte) {
		st := newState()
		_ = eachRecord(body, func(r *record) error { return st.absorb(r, 1, 512) })
	})
}
