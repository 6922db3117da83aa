package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// TestSelectAgainstScan compares Select with trying every matcher on every series.
func TestSelectAgainstScan(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	patterns := []string{"", "1", "2", "1|2", ".*", ".+", "1.*", "|3", "[12]", "x"}
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		m, all := NewMem(), map[uint32]labels.Labels{}
		for id := uint32(1); id <= 60; id++ {
			b := labels.NewBuilder(labels.FromStrings("__name__", fmt.Sprint("m", rng.IntN(3))))
			for _, n := range names {
				if rng.IntN(2) == 0 {
					b.Set(n, fmt.Sprint(rng.IntN(14)))
				}
			}
			all[id] = b.Labels()
			m.Add(id, string(model.AppendKey(nil, all[id])))
		}
		var gone []uint32
		for id := range all {
			if rng.IntN(4) == 0 {
				gone = append(gone, id)
			}
		}
		m.Remove(gone)
		for _, id := range gone {
			delete(all, id)
		}
		for range 30 {
			var ms []*labels.Matcher
			for range 1 + rng.IntN(3) {
				ms = append(ms, labels.MustNewMatcher(labels.MatchType(rng.IntN(4)), names[rng.IntN(len(names))], patterns[rng.IntN(len(patterns))]))
			}
			got, err := Select(m, ms)
			if err != nil {
				t.Fatal(err)
			}
			var want []uint32
			for id, ls := range all {
				if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) }) {
					want = append(want, id)
				}
			}
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d, %v: got %v, want %v", seed, ms, got, want)
			}
		}
	}
}

func TestRemoveAllLeavesNothing(t *testing.T) {
	m := NewMem()
	m.Add(1, string(model.AppendKey(nil, labels.FromStrings("a", "b"))))
	m.Remove([]uint32{1})
	if len(m.names) != 0 || len(m.all) != 0 {
		t.Fatalf("something is left: %+v", m)
	}
}
