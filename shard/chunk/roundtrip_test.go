package chunk

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestRoundTripOfEveryShape(t *testing.T) {
	var e Encoder
	var d Decoder
	var b []byte
	for c, col := range columns() {
		for k, n := range []int{1, 2, 3, 4, 7, 32, 33, 120, 240, 1000, MaxSamples} {
			for manner := range manners {
				r := rand.New(rand.NewPCG(uint64(c), uint64(k*manners+manner)))
				vs, ts := col.values(r, n), times(r, manner, n)
				var st []int64
				if manner == 1 {
					st = times(r, r.IntN(manners), n)
				}
				b = e.Floats(b[:0], ts, vs, st)
				checkFloats(t, &d, b, ts, vs, st)
				if max := 9*n + 22 + 8*n*min(manner, 1) + 30 + 9*len(st); len(b) > max {
					t.Errorf("%s: %d samples in %d bytes, want at most %d", col.name, n, len(b), max)
				}
				if s, err := d.Describe(Floats, b); err != nil || s.Count != n ||
					s.Times.Bytes+s.Starts.Bytes+s.Values.Bytes != len(b) ||
					(n >= 32 && !strings.HasPrefix(s.Values.Encoding, col.wants)) {
					t.Errorf("%s: got %+v, %v; want %d bytes, encoding %s", col.name, s, err, len(b), col.wants)
				}
				if t.Failed() {
					t.Fatalf("%s, %d samples, timestamps of manner %d", col.name, n, manner)
				}
			}
		}
	}
}

// checkFloats decodes b and compares every bit.
func checkFloats(t *testing.T, d *Decoder, b []byte, ts []int64, vs []float64, st []int64) {
	t.Helper()
	gotT, gotV, gotS, err := d.Floats(b, nil, nil, nil)
	if err != nil {
		t.Errorf("decode: %v", err)
		return
	}
	if !slices.Equal(gotT, ts) || !slices.Equal(gotS, st) {
		t.Errorf("got timestamps %v, start timestamps %v; want %v, %v", gotT, gotS, ts, st)
	}
	if len(gotV) != len(vs) {
		t.Errorf("got %d values, want %d", len(gotV), len(vs))
		return
	}
	for i, v := range gotV {
		if math.Float64bits(v) != math.Float64bits(vs[i]) {
			t.Errorf("value %d: got %v (%#x), want %v (%#x)", i, v, math.Float64bits(v), vs[i], math.Float64bits(vs[i]))
			return
		}
	}
	only, err := d.Timestamps(b, nil)
	if err != nil || !slices.Equal(only, ts) {
		t.Errorf("Timestamps: got %v, %v; want %v", only, err, ts)
	}
}
