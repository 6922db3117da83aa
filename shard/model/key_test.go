package model

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestPairHash: series that differ in one label only have one hash, whichever place the
// label has among the others, and that of the series without it.
func TestPairHash(t *testing.T) {
	for _, name := range []string{"AAA", "__replica__", "job", "zone"} {
		hash := func(ls labels.Labels) uint64 {
			key := AppendKey(nil, ls)
			return PairHash(key, HashKey(key), name)
		}
		without := labels.FromStrings("__name__", "up", "instance", "i", "m", "x")
		want := HashKey(AppendKey(nil, without))
		b := labels.NewBuilder(without)
		for _, value := range []string{"", "a", "b", "a much longer value than the others"} {
			ls := b.Set(name, value).Labels()
			if got := hash(ls); got != want {
				t.Errorf("%s: %x, want %x", ls, got, want)
			}
			if got := AppendKeyWithout(nil, AppendKey(nil, ls), name); string(got) != string(AppendKey(nil, without)) {
				t.Errorf("%s without %s: %q", ls, name, got)
			}
		}
		if hash(labels.FromStrings("__name__", "up", "instance", "j")) == want {
			t.Error("another series has the same hash")
		}
	}
}

func BenchmarkPairHash(b *testing.B) {
	key := AppendKey(nil, labels.FromStrings("__name__", "node_cpu_seconds_total", "__replica__", "a", "cpu", "3", "instance", "host-17:9100", "job", "node", "mode", "idle"))
	var sum uint64
	for b.Loop() {
		sum += PairHash(key, 1, "__replica__")
	}
	plain := AppendKeyWithout(nil, key, "__replica__")
	b.Run("absent", func(b *testing.B) {
		for b.Loop() {
			sum += PairHash(plain, 1, "__replica__")
		}
	})
	_ = sum
}

func BenchmarkHashKey(b *testing.B) {
	key := AppendKey(nil, labels.FromStrings("__name__", "node_cpu_seconds_total", "cpu", "3", "instance", "host-17:9100", "job", "node", "mode", "idle"))
	var sum uint64
	for b.Loop() {
		sum += HashKey(key)
	}
	_ = sum
}
