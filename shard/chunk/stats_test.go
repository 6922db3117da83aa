package chunk

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
)

func TestStatsOf(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		name string
		vs   []float64
		want Stats
	}{
		{"none", nil, Stats{}},
		{"one", []float64{-3}, Stats{Count: 1, Sum: -3, Min: -3, Max: -3, First: -3, Last: -3}},
		{"counter with a reset", []float64{5, 9, 2, 2, 4}, Stats{Count: 5, Sum: 22, Min: 2, Max: 9, First: 5, Last: 4, Resets: 1}},
		{"stale between", []float64{5, stale(), 4, stale()}, Stats{Count: 4, NaNs: 2, Sum: 9, Min: 4, Max: 5, First: 5, Last: stale(), Resets: 1}},
		{"NaNs only", []float64{nan, stale()}, Stats{Count: 2, NaNs: 2, First: nan, Last: stale()}},
		{"NaN first", []float64{nan, 7, 8}, Stats{Count: 3, NaNs: 1, Sum: 15, Min: 7, Max: 8, First: nan, Last: 8}},
		{"infinities", []float64{inf, inf}, Stats{Count: 2, Sum: inf, Min: inf, Max: inf, First: inf, Last: inf}},
		{"overflow", []float64{math.MaxFloat64, math.MaxFloat64}, Stats{Count: 2, Sum: inf, Min: math.MaxFloat64, Max: math.MaxFloat64, First: math.MaxFloat64, Last: math.MaxFloat64}},
		{"cancellation", []float64{1, 1e100, 1, -1e100}, Stats{Count: 4, Sum: 2, Min: -1e100, Max: 1e100, First: 1, Last: -1e100, Resets: 2}},
	} {
		got := StatsOf(c.vs)
		if !sameStats(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	if s := StatsOf([]float64{math.Inf(1), math.Inf(-1)}); !math.IsNaN(s.Sum) {
		t.Errorf("sum of both infinities: got %v, want NaN", s.Sum)
	}
}

func sameStats(a, b Stats) bool {
	same := func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }
	return a.Count == b.Count && a.NaNs == b.NaNs && a.Resets == b.Resets && same(a.Sum, b.Sum) &&
		same(a.Min, b.Min) && same(a.Max, b.Max) && same(a.First, b.First) && same(a.Last, b.Last)
}

func TestStatsRoundTrip(t *testing.T) {
	for i, col := range columns() {
		for _, n := range []int{1, 2, 40, 240} {
			vs := col.values(rand.New(rand.NewPCG(uint64(i), uint64(n))), n)
			s := StatsOf(vs)
			b := AppendStats([]byte("x"), s)
			if len(b)-1 > 48 {
				t.Errorf("%s: %d bytes", col.name, len(b)-1)
			}
			got, rest, err := ReadStats(append(b, "tail"...)[1:])
			if err != nil || string(rest) != "tail" || !sameStats(got, s) {
				t.Errorf("%s: got %+v, rest %q, %v; want %+v", col.name, got, rest, err, s)
			}
			for cut := 1; cut < len(b); cut++ {
				if _, _, err := ReadStats(b[1:cut]); !errors.Is(err, ErrCorrupt) {
					t.Errorf("%s: cut at %d: got %v, want ErrCorrupt", col.name, cut, err)
				}
			}
		}
	}
}

// A constant series is the most common one, and must not pay for statistics.
func TestStatsOfConstantAreSmall(t *testing.T) {
	s := StatsOf([]float64{1, 1, 1, 1})
	if b := AppendStats(nil, s); len(b) > 4 {
		t.Errorf("got %d bytes, want 4", len(b))
	}
}

func BenchmarkStatsOf(b *testing.B) {
	vs := ordinaryColumns()[3].values(rand.New(rand.NewPCG(1, 1)), 240)
	var sum float64
	for b.Loop() {
		sum += StatsOf(vs).Sum
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(vs)), "ns/sample")
}

func BenchmarkAppendStats(b *testing.B) {
	s := StatsOf(ordinaryColumns()[7].values(rand.New(rand.NewPCG(1, 1)), 240))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendStats(dst[:0], s)
	}
}
