package shard

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/strandline-db/strandline/shard/chunk"
)

// TestBackfill: a million samples that are older than a series' newest are stored without
// looking through all of them for each, in order of time, against it, and at random.
func TestBackfill(t *testing.T) {
	const n = 1_000_000
	for name, at := range map[string]func(i int64) int64{
		"ascending":  func(i int64) int64 { return i },
		"descending": func(i int64) int64 { return n - i },
		"scattered":  func(i int64) int64 { return i * 7919 % n },
	} {
		t.Run(name, func(t *testing.T) {
			var h headMem
			s := newSeries(1, "k")
			s.addFloat(&h, 2*n, 1, 0)
			for i := range int64(n) {
				if out := s.addFloat(&h, at(i), float64(at(i)), 0); out != stored {
					t.Fatalf("sample %d: %v", i, out)
				}
			}
			for i := range int64(n) {
				if out := s.addFloat(&h, at(i), float64(at(i)), 0); out != duplicate {
					t.Fatalf("sample %d again: %v", i, out)
				}
			}
			if out := s.addFloat(&h, n/2, -1, 0); out != overwritten {
				t.Errorf("a new value: %v", out)
			}
		})
	}
}

// TestLateModel compares a store with a map while samples come in any order and again,
// and snapshots with what the map was when they were taken.
func TestLateModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var h headMem
		s := newSeries(1, "k")
		model := map[int64]float64{}
		span := int64(1 + rnd.IntN(2000))
		type moment struct {
			at *store
			t  []int64
			v  []float64
		}
		var moments []moment
		for range rnd.IntN(3000) {
			at, v := rnd.Int64N(span), float64(rnd.IntN(3))
			if rnd.IntN(4) == 0 {
				at = s.lastT + 1
			}
			old, had := model[at]
			want := stored
			if had && old == v {
				want = duplicate
			} else if had {
				want = overwritten
			}
			if out := s.addFloat(&h, at, v, 0); out != want {
				t.Fatalf("seed %d: %v at %d: %v, want %v", seed, v, at, out, want)
			}
			model[at] = v
			if rnd.IntN(300) == 0 {
				ts, vs := flat(model)
				moments = append(moments, moment{s.active.snapshot(), ts, vs})
			}
		}
		ts, vs := flat(model)
		moments = append(moments, moment{s.active.snapshot(), ts, vs})
		for i, x := range moments {
			var m merger
			if err := x.at.read(&chunk.Decoder{}, &m); err != nil {
				t.Fatal(err)
			}
			if m.finish(); !slices.Equal(m.cols.T, x.t) || !slices.Equal(m.cols.V, x.v) {
				t.Fatalf("seed %d, snapshot %d of %d: %d samples, want %d", seed, i, len(moments), len(m.cols.T), len(x.t))
			}
		}
	}
}

// flat returns a model's samples in order of time.
func flat(model map[int64]float64) (ts []int64, vs []float64) {
	for t := range model {
		ts = append(ts, t)
	}
	slices.Sort(ts)
	for _, t := range ts {
		vs = append(vs, model[t])
	}
	return ts, vs
}
