package pair

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"

	"github.com/strandline-db/strandline/shard/model"
)

const second = 1000

// scrape is a sender's samples from a phase on, every interval; those for which lost is
// true are missing. A value tells its sender and time.
func scrape(sender int, phase, interval, until int64, lost func(t int64) bool) *model.Columns {
	c := &model.Columns{}
	for t := phase; t < until; t += interval {
		if lost == nil || !lost(t) {
			c.T, c.V = append(c.T, t), append(c.V, float64(sender)*1e12+float64(t))
		}
	}
	return c
}

func merge(parts ...*model.Columns) *model.Columns {
	var c Chooser
	var out model.Columns
	c.Merge(&out, parts)
	return &out
}

func TestOneSenderIsChosen(t *testing.T) {
	a, b := scrape(0, 3*second, 15*second, 2*Bucket, nil), scrape(1, 10*second, 15*second, 2*Bucket, nil)
	if got := merge(a, b); !reflect.DeepEqual(got, a) {
		t.Fatalf("two whole series: got %v, want the first", got)
	}
}

// TestLostSender: whatever is lost of one, or of both at different times, no gap is wider
// than two intervals, and nowhere do samples stand much closer than one.
func TestLostSender(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		interval := int64(5+rng.IntN(115)) * second
		until := int64(6 * Bucket)
		gone := func(from, to int64) func(int64) bool { return func(t int64) bool { return t >= from && t < to } }
		// The losses do not overlap: at every time somebody scrapes.
		cut := rng.Int64N(until-4*interval) + 2*interval
		aFrom, bTo := rng.Int64N(cut), cut+rng.Int64N(until-cut)
		a := scrape(0, rng.Int64N(interval), interval, until, gone(aFrom, cut-interval))
		b := scrape(1, rng.Int64N(interval), interval, until, gone(cut+interval, bTo))
		got := merge(a, b)
		near := 0
		for i := 1; i < len(got.T); i++ {
			d := got.T[i] - got.T[i-1]
			if d <= 0 || d > 2*interval+interval/2 {
				t.Fatalf("seed %d: %d ms between samples at an interval of %d", seed, d, interval)
			}
			if d < interval/4 {
				near++
			}
		}
		// At most one pair at each border of a bucket and of a loss.
		if near > 12 {
			t.Fatalf("seed %d: %d samples are very near another", seed, near)
		}
		if n, most := int64(len(got.T)), until/interval+12; n > most {
			t.Fatalf("seed %d: %d samples, more than %d", seed, n, most)
		}
	}
}

// TestIdempotent: choosing from what was kept gives the same; so does choosing bucket by
// bucket.
func TestIdempotent(t *testing.T) {
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 2))
		parts := make([]*model.Columns, 2+rng.IntN(2))
		for s := range parts {
			interval := int64(10+rng.IntN(50)) * second
			if rng.IntN(3) > 0 {
				interval = 15 * second
			}
			parts[s] = scrape(s, rng.Int64N(interval)-Bucket, interval, 3*Bucket, func(int64) bool { return rng.IntN(4) == 0 })
			for i := range parts[s].V {
				if rng.IntN(20) == 0 {
					parts[s].V[i] = math.Float64frombits(value.StaleNaN)
				}
			}
		}
		want := merge(parts...)
		pieces := &model.Columns{}
		for from := int64(-Bucket); from < 3*Bucket; from += Bucket {
			var cut []*model.Columns
			for _, p := range parts {
				i, _ := slices.BinarySearch(p.T, from)
				k, _ := slices.BinarySearch(p.T, from+Bucket)
				cut = append(cut, &model.Columns{T: p.T[i:k], V: p.V[i:k]})
			}
			piece := merge(cut...)
			pieces.T, pieces.V = append(pieces.T, piece.T...), append(pieces.V, piece.V...)
		}
		same(t, fmt.Sprintf("seed %d, in pieces", seed), pieces, want)
		var c Chooser
		before := 0
		for _, p := range parts {
			before += len(p.T)
		}
		c.Keep(parts)
		after := 0
		for _, p := range parts {
			after += len(p.T)
		}
		if after != len(want.T) || after >= before {
			t.Fatalf("seed %d: kept %d of %d, want %d", seed, after, before, len(want.T))
		}
		same(t, fmt.Sprintf("seed %d, after dropping", seed), merge(parts...), want)
	}
}

func same(t *testing.T, what string, got, want *model.Columns) {
	t.Helper()
	if !slices.Equal(got.T, want.T) {
		t.Fatalf("%s: times\n got %v\nwant %v", what, got.T, want.T)
	}
	for i := range want.V {
		if math.Float64bits(got.V[i]) != math.Float64bits(want.V[i]) {
			t.Fatalf("%s: at %d %x, want %x", what, want.T[i], got.V[i], want.V[i])
		}
	}
}

// TestStaleMarkerOfOne: a sender that stops and says so does not end the series that
// the other goes on with.
func TestStaleMarkerOfOne(t *testing.T) {
	b := scrape(1, 7*second, 15*second, 2*Bucket, nil)
	a := scrape(0, 0, 15*second, Bucket/2, nil)
	a.T, a.V = append(a.T, Bucket/2), append(a.V, math.Float64frombits(value.StaleNaN))
	if got := merge(a, b); !reflect.DeepEqual(got, b) {
		t.Fatalf("got %v", got)
	}
}

// TestHistogramsAndStartTimes come along with the samples that are chosen.
func TestHistogramsAndStartTimes(t *testing.T) {
	h := &histogram.Histogram{Count: 1}
	a := &model.Columns{T: []int64{0, 15 * second}, V: []float64{1, 2}, ST: []int64{5, 6},
		Hist: []model.HistogramSample{{T: 30 * second, H: h}}}
	b := &model.Columns{T: []int64{7 * second, Bucket + 1}, V: []float64{8, 9}}
	want := &model.Columns{T: []int64{0, 15 * second, Bucket + 1}, V: []float64{1, 2, 9}, ST: []int64{5, 6, 0}, Hist: a.Hist}
	if got := merge(a, b); !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	var c Chooser
	c.Keep([]*model.Columns{a, b})
	if !slices.Equal(b.T, []int64{Bucket + 1}) || len(a.Hist) != 1 || len(a.ST) != 2 {
		t.Fatalf("kept %+v and %+v", a, b)
	}
}

func BenchmarkMerge(b *testing.B) {
	parts := []*model.Columns{scrape(0, 0, 15*second, 24*6*Bucket, nil), scrape(1, 8*second, 15*second, 24*6*Bucket, nil)}
	var c Chooser
	var out model.Columns
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		c.Merge(&out, parts)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(parts[0].T)), "ns/sample")
}
