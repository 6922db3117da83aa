package chunk

import (
	"math"
	"testing"
)

func TestRoundTripSmoke(t *testing.T) {
	var e Encoder
	var d Decoder
	ts := []int64{-5, 10, 40, math.MaxInt64}
	vs := []float64{1, math.Copysign(0, -1), math.NaN(), math.Inf(1)}
	b := e.Floats(nil, ts, vs, nil)
	b2 := e.Floats(nil, ts, vs, []int64{1, 2, 3, 4})
	ts2, vs2, st2, err := d.Floats(b, nil, nil, nil)
	if err != nil || len(st2) != 0 {
		t.Fatal(err, st2)
	}
	ts2, vs2, st2, err = d.Floats(b2, ts2, vs2, st2)
	if err != nil || len(ts2) != 8 || len(st2) != 8 || st2[3] != 0 || st2[7] != 4 {
		t.Fatal(err, ts2, st2)
	}
	for i := range vs2 {
		if math.Float64bits(vs2[i]) != math.Float64bits(vs[i%4]) || ts2[i] != ts[i%4] {
			t.Fatal(i, vs2[i], ts2[i])
		}
	}
	b = e.Blobs(nil, ts, nil, [][]byte{[]byte("a"), {}, []byte("ccc"), []byte("d")})
	_, _, bl, err := d.Blobs(b, nil, nil, nil)
	if err != nil || len(bl) != 4 || string(bl[2]) != "ccc" {
		t.Fatal(err, bl)
	}
}
