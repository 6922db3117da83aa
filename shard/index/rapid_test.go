package index

import (
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"pgregory.net/rapid"

	"github.com/strandline-db/strandline/shard/model"
)

// patterns are values for every kind of matcher; all are valid expressions.
var patterns = []string{
	"", "a", "ab", "b", "a|b", "a|", "|", ".*", ".+", "a.*", "a.+", ".*b", ".?", "[ab]", "(?i)A", "(?i)a|b", "a(b|c)?", "^a$", "x\ny", "é",
}

var valuePool = []string{"", "a", "ab", "abc", "b", "A", "x\ny", "é"}

func drawMatchers(t *rapid.T) []*labels.Matcher {
	ms := make([]*labels.Matcher, rapid.IntRange(0, 4).Draw(t, "matchers"))
	for i := range ms {
		ms[i] = labels.MustNewMatcher(
			labels.MatchType(rapid.IntRange(0, 3).Draw(t, "type")),
			rapid.SampledFrom([]string{"p", "q", "r", "none", ""}).Draw(t, "name"),
			rapid.SampledFrom(patterns).Draw(t, "pattern"))
	}
	return ms
}

func matches(ls labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}

// TestSelectMeansWhatMatchersMean adds, removes and asks at random, and compares
// with trying each matcher on each series.
func TestSelectMeansWhatMatchersMean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, have := NewMem(), map[uint32]labels.Labels{}
		for range rapid.IntRange(0, 40).Draw(t, "series") {
			id := rapid.Uint32Range(1, 2000).Draw(t, "id")
			if _, used := have[id]; used {
				continue
			}
			b := labels.NewBuilder(labels.FromStrings("__name__", "m"))
			for _, n := range []string{"p", "q", "r"} {
				b.Set(n, rapid.SampledFrom(valuePool).Draw(t, n))
			}
			have[id] = b.Labels()
			m.Add(id, string(model.AppendKey(nil, have[id])))
		}
		var gone []uint32
		for _, id := range sortedIDs(have) {
			if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
				gone = append(gone, id)
				delete(have, id)
			}
		}
		m.Remove(append(gone, 5000))
		compare(t, m, have, drawMatchers(t))
	})
}

func sortedIDs(have map[uint32]labels.Labels) []uint32 {
	var out []uint32
	for id := range have {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func compare(t *rapid.T, m *Mem, have map[uint32]labels.Labels, ms []*labels.Matcher) {
	var ids []uint32
	names, values := map[string]bool{}, map[string]bool{}
	for _, id := range sortedIDs(have) {
		if !matches(have[id], ms) {
			continue
		}
		ids = append(ids, id)
		have[id].Range(func(l labels.Label) {
			names[l.Name] = true
			if l.Name == "p" {
				values[l.Value] = true
			}
		})
	}
	got, err := Select(m, ms)
	if err != nil || !slices.Equal(got, ids) {
		t.Fatalf("Select(%v) = %v, %v, want %v", ms, got, err, ids)
	}
	for i := range got {
		got[i] = 0 // the answer is ours to overwrite
	}
	gotNames, err := LabelNames(m, ms)
	if err != nil || !slices.Equal(gotNames, keys(names)) {
		t.Fatalf("LabelNames(%v) = %v, %v, want %v", ms, gotNames, err, keys(names))
	}
	gotValues, err := LabelValues(m, "p", ms)
	if err != nil || !slices.Equal(gotValues, keys(values)) {
		t.Fatalf("LabelValues(%v) = %v, %v, want %v", ms, gotValues, err, keys(values))
	}
	if again, err := Select(m, ms); err != nil || !slices.Equal(again, ids) {
		t.Fatalf("the second Select(%v) = %v, %v, want %v", ms, again, err, ids)
	}
}

func keys(set map[string]bool) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// TestSets compares the operations on sorted lists with maps.
func TestSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) []uint32 {
			top := rapid.SampledFrom([]uint32{20, 300, 1 << 31}).Draw(t, "top")
			ids := rapid.SliceOfN(rapid.Uint32Range(0, top), 0, 80).Draw(t, name)
			return sortSet(ids)
		}
		a, b := draw("a"), draw("b")
		if !slices.IsSorted(a) || len(slices.Compact(slices.Clone(a))) != len(a) {
			t.Fatalf("sortSet left %v", a)
		}
		var both, only []uint32
		for _, x := range a {
			if slices.Contains(b, x) {
				both = append(both, x)
			} else {
				only = append(only, x)
			}
		}
		if got := intersect(nil, a, b); !slices.Equal(got, both) {
			t.Fatalf("intersect(%v, %v) = %v", a, b, got)
		}
		if intersects(a, b) != (len(both) > 0) {
			t.Fatalf("intersects(%v, %v)", a, b)
		}
		if got := without(nil, a, b); !slices.Equal(got, only) {
			t.Fatalf("without(%v, %v) = %v", a, b, got)
		}
		c := slices.Clone(a)
		if got := intersect(c[:0], c, b); !slices.Equal(got, both) {
			t.Fatalf("intersect in place of %v and %v = %v", a, b, got)
		}
		c = slices.Clone(a)
		if got := without(c[:0], c, b); !slices.Equal(got, only) {
			t.Fatalf("without in place of %v and %v = %v", a, b, got)
		}
	})
}

// fleetKeys makes the keys of n series of 8 labels, as a fleet of hosts has them.
func fleetKeys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = string(model.AppendKey(nil, labels.FromStrings(
			"__name__", fmt.Sprintf("node_metric_%03d_total", i%500), "cluster", "eu-1", "env", "prod", "instance", fmt.Sprintf("host-%04d:9100", i/500),
			"job", "node", "mode", fmt.Sprintf("mode%d", i%8), "pod", fmt.Sprintf("pod-%06d", i), "zone", fmt.Sprintf("z%d", i%3))))
	}
	return out
}
