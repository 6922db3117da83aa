package live

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestUpTo(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 5000 {
		ts := make([]int64, rng.IntN(40))
		for i := range ts {
			ts[i] = rng.Int64N(100)
		}
		slices.Sort(ts)
		ts = slices.Compact(ts)
		at := rng.Int64N(104) - 2
		want := 0
		for want < len(ts) && ts[want] <= at {
			want++
		}
		if got := upTo(ts, at); got != want {
			t.Fatalf("%d of %v are at most %d, got %d", want, ts, at, got)
		}
	}
}
