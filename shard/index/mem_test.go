package index

import (
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestMemoryOfAFleet holds the index of 100,000 series of 8 labels to its budget.
// Heap bytes are counted, not estimated; the keys are the caller's.
func TestMemoryOfAFleet(t *testing.T) {
	keys := fleetKeys(100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m := NewMem()
	for i, k := range keys {
		m.Add(uint32(i+1), k)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%.1f MB", float64(used)/1e6)
	if used > 15e6 {
		t.Errorf("the index takes %.1f MB", float64(used)/1e6)
	}
	runtime.KeepAlive(keys)
	runtime.KeepAlive(m)
}

// TestChurnGivesMemoryBack adds and removes series under ever new values.
func TestChurnGivesMemoryBack(t *testing.T) {
	m := NewMem()
	keys := fleetKeys(10_000)
	for i, k := range keys {
		m.Add(uint32(i+1), k)
	}
	gone := make([]uint32, 9_990)
	for i := range gone {
		gone[i] = uint32(i + 1)
	}
	m.Remove(gone)
	if n := m.Len(); n != 10 {
		t.Fatalf("%d series are left", n)
	}
	if cap(m.all) > 64 || m.names["pod"].peak > 10 {
		t.Errorf("room is kept for %d series and %d values", cap(m.all), m.names["pod"].peak)
	}
	for name, l := range m.names {
		if l.series != 10 {
			t.Errorf("label %s counts %d series", name, l.series)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	keys := fleetKeys(100_000)
	b.ReportAllocs()
	m := NewMem()
	b.ResetTimer()
	for i := range b.N {
		if i%len(keys) == 0 {
			m = NewMem()
		}
		m.Add(uint32(i+1), keys[i%len(keys)])
	}
}

func BenchmarkRemove(b *testing.B) {
	const batch = 100
	keys := fleetKeys(100_000)
	m, next := NewMem(), uint32(1)
	for _, k := range keys {
		m.Add(next, k)
		next++
	}
	b.ResetTimer()
	for range b.N {
		var gone [batch]uint32
		for i := range gone {
			gone[i] = next - uint32(len(keys)) + uint32(i)
		}
		m.Remove(gone[:])
		for range batch { // the oldest comes back as the newest
			m.Add(next, keys[int(next-1)%len(keys)])
			next++
		}
	}
}

func BenchmarkSelect(b *testing.B) {
	m := NewMem()
	for i, k := range fleetKeys(100_000) {
		m.Add(uint32(i+1), k)
	}
	eq, re, not := labels.MatchEqual, labels.MatchRegexp, labels.MatchNotEqual
	mk := labels.MustNewMatcher
	for _, c := range []struct {
		name string
		ms   []*labels.Matcher
	}{
		{"name", []*labels.Matcher{mk(eq, "__name__", "node_metric_007_total")}},
		{"name+instance", []*labels.Matcher{mk(eq, "__name__", "node_metric_007_total"), mk(eq, "instance", "host-0042:9100")}},
		{"set", []*labels.Matcher{mk(eq, "job", "node"), mk(re, "mode", "mode1|mode2")}},
		{"prefix", []*labels.Matcher{mk(re, "pod", "pod-0001.*")}},
		{"scan", []*labels.Matcher{mk(re, "pod", ".*77.*")}},
		{"minus", []*labels.Matcher{mk(eq, "job", "node"), mk(not, "mode", "mode1")}},
		{"unset", []*labels.Matcher{mk(eq, "missing", "")}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if _, err := Select(m, c.ms); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
