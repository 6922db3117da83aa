package wal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// model is what a log must hold.
type model struct {
	base, last map[StreamID]uint64
	data       map[ref]string
}

func newModel() *model {
	return &model{base: map[StreamID]uint64{}, last: map[StreamID]uint64{}, data: map[ref]string{}}
}

func (m *model) clone() *model {
	return &model{base: maps.Clone(m.base), last: maps.Clone(m.last), data: maps.Clone(m.data)}
}

// diff describes how a log differs, or returns "".
func (m *model) diff(l *Log) string {
	got := map[ref]string{}
	if err := l.Replay(func(StreamID) uint64 { return 0 }, func(e *Entry) error {
		got[ref{e.Stream, e.Index}] = string(e.Data)
		return nil
	}); err != nil {
		return err.Error()
	}
	for s, last := range m.last {
		if l.Last(s) != last || l.Base(s) != m.base[s] {
			return fmt.Sprintf("stream %d holds (%d, %d], not (%d, %d]", s, l.Base(s), l.Last(s), m.base[s], last)
		}
	}
	if !maps.Equal(got, m.data) {
		return fmt.Sprintf("%d live entries, not %d", len(got), len(m.data))
	}
	return ""
}

// step does a random operation. before is the model as acknowledged, after what it
// is if the operation succeeds.
func step(l *Log, rng *rand.Rand, before *model) (after *model, err error) {
	m := before.clone()
	s := StreamID(rng.IntN(3))
	switch k := rng.IntN(10); {
	case k < 6:
		var es []Entry
		for range 1 + rng.IntN(4) {
			m.last[s]++
			d := fmt.Sprintf("%d/%d/%s", s, m.last[s], strings.Repeat("x", rng.IntN(900)))
			es = append(es, Entry{Stream: s, Index: m.last[s], Term: 1, Data: []byte(d)})
			m.data[ref{s, m.last[s]}] = d
		}
		err = l.Append(es)
	case k < 9:
		upto := m.last[s] - min(m.last[s]-m.base[s], uint64(rng.IntN(3)))
		for ; m.base[s] < upto; m.base[s]++ {
			delete(m.data, ref{s, m.base[s] + 1})
		}
		err = l.TruncateFront(s, upto)
	case m.last[s] > m.base[s]:
		from := m.last[s]
		delete(m.data, ref{s, from})
		m.last[s]--
		err = l.TruncateBack(s, from)
	}
	return m, err
}

// TestPowerCut cuts the power at each failpoint in turn, in the middle of a random operation, keeping
// any part of what was not synced. The log must open with all that was acknowledged,
// and the operation under way is there whole or not at all.
func TestPowerCut(t *testing.T) {
	points := []string{"wal-roll", "wal-before-write", "wal-before-sync", "wal-after-sync", "wal-drop-segment"}
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		disk := vfs.NewMem()
		var cut *vfs.MemFS
		name := points[seed%uint64(len(points))]
		steps := 2 + rng.IntN(30)
		l, err := Open("d/wal", &Options{FS: disk, SegmentSize: 4096, Failpoint: func(at string) {
			if at != name {
				return
			}
			if steps--; steps == 0 {
				cut = disk.CrashClone(rng, rng.IntN(5)*25)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		m, after := newModel(), newModel()
		for cut == nil {
			m = after
			if after, err = step(l, rng, m); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := Open("d/wal", &Options{FS: cut, SegmentSize: 4096})
		if err != nil {
			t.Errorf("seed %d, power cut at %s: %v\n%s", seed, name, err, cut)
			continue
		}
		if d, d2 := m.diff(again), after.diff(again); d != "" && d2 != "" {
			t.Errorf("seed %d, power cut at %s: neither the state before (%s) nor after (%s)", seed, name, d, d2)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestEveryOperationFails lets the Nth file operation fail, for every N. After an
// error nothing is acknowledged, and a restart finds all that was.
func TestEveryOperationFails(t *testing.T) {
	causes := []error{syscall.EIO, syscall.ENOSPC, &vfs.ShortWrite{Bytes: 700, Err: syscall.ENOSPC}}
	for c, cause := range causes {
		for n := uint64(1); ; n++ {
			if hit := failNth(t, n, cause, c); !hit {
				break
			}
		}
	}
}

// failNth runs a workload whose nth operation fails. It reports whether it came so far.
func failNth(t *testing.T, n uint64, cause error, c int) (hit bool) {
	t.Helper()
	var op vfs.Op
	disk := vfs.NewMem()
	faulty := vfs.NewFault(disk, func(o vfs.Op) error {
		if o.N != n {
			return nil
		}
		hit, op = true, o
		return cause
	})
	where := func() string { return fmt.Sprintf("operation %d (%s %s) failed by %v", n, op.Kind, op.Path, cause) }
	m, after := newModel(), newModel()
	l, err := Open("d/wal", &Options{FS: faulty, SegmentSize: 4096})
	if err == nil {
		rng := rand.New(rand.NewPCG(11, uint64(c)))
		for range 25 {
			m = after
			if after, err = step(l, rng, m); err != nil {
				break
			}
		}
		if err != nil {
			if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s: %v", where(), err)
			}
			for s := range StreamID(3) {
				if err := l.Append([]Entry{{Stream: s, Index: after.last[s] + 1, Data: []byte("x")}}); !errors.Is(err, ErrFailed) {
					t.Errorf("%s: a later append gives %v", where(), err)
				}
			}
		} else {
			m = after
		}
		_ = l.Close() // may repeat the cause
	}
	for _, percent := range []int{0, 50, 100} {
		cut := disk.CrashClone(rand.New(rand.NewPCG(n, uint64(percent))), percent)
		again, err := Open("d/wal", &Options{FS: cut, SegmentSize: 4096})
		if err != nil {
			t.Errorf("%s: reopening with %d %% kept: %v", where(), percent, err)
			continue
		}
		if d, d2 := m.diff(again), after.diff(again); d != "" && d2 != "" {
			t.Errorf("%s: neither the state before (%s) nor after (%s)", where(), d, d2)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	return hit
}

// TestRestartThenPowerCut lets the Nth file operation fail, for every N, as if the process
// had been killed there, and starts the log again on the same disk, whose page cache shows
// what may never have reached it. All that is acknowledged from then on survives a power cut.
func TestRestartThenPowerCut(t *testing.T) {
	for n := uint64(1); restartAfter(t, n); n++ {
	}
}

// restartAfter runs a workload whose nth operation fails, restarts it, goes on, and cuts the
// power. It reports whether it came so far.
func restartAfter(t *testing.T, n uint64) (hit bool) {
	t.Helper()
	disk, rng := vfs.NewMem(), rand.New(rand.NewPCG(13, 0))
	faulty := vfs.NewFault(disk, func(o vfs.Op) error {
		if o.N != n {
			return nil
		}
		hit = true
		return syscall.EIO
	})
	m, after := newModel(), newModel()
	run := func(l *Log, steps int) (err error) {
		for range steps {
			m = after
			if after, err = step(l, rng, m); err != nil {
				return err
			}
		}
		m = after
		return nil
	}
	if l, err := Open("d/wal", &Options{FS: faulty, SegmentSize: 4096}); err == nil {
		_ = run(l, 25)
		_ = l.Close() // may repeat the cause
	}
	l, err := Open("d/wal", &Options{FS: disk, SegmentSize: 4096})
	if err != nil {
		t.Fatalf("operation %d failed, the log does not open again: %v", n, err)
	}
	switch d, d2 := m.diff(l), after.diff(l); {
	case d2 == "": // the operation under way is there
	case d == "":
		after = m
	default:
		t.Fatalf("operation %d failed: neither the state before (%s) nor after (%s)", n, d, d2)
	}
	if err := run(l, 3); err != nil {
		t.Fatal(err)
	}
	for _, percent := range []int{0, 50} {
		cut := disk.CrashClone(rng, percent)
		again, err := Open("d/wal", &Options{FS: cut, SegmentSize: 4096})
		if err != nil {
			t.Errorf("operation %d failed, then a restart and a power cut with %d %% kept: %v", n, percent, err)
			continue
		}
		if d := m.diff(again); d != "" {
			t.Errorf("operation %d failed, then a restart and a power cut with %d %% kept: %s", n, percent, d)
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return hit
}

// FuzzSegmentHeader decodes arbitrary segment and batch headers.
func FuzzSegmentHeader(f *testing.F) {
	f.Add(appendSegmentHeader(7), uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, seq uint64) {
		if checkSegmentHeader(b, seq) == nil && string(b[:segmentHeader]) != string(appendSegmentHeader(seq)) {
			t.Fatal("accepted a header that was never written")
		}
		if len(b) >= batchHeader {
			if size, _, err := checkBatchHeader(b, seq, 512); err == nil && (size < batchHeader || size > maxBatch+batchHeader) {
				t.Fatalf("batch of %d bytes", size)
			}
		}
	})
}
