package chunk

import (
	"bytes"
	"math"
	"slices"
)

// verifyFloats panics unless chunk b holds exactly the given samples. It runs in builds
// with the tag invariants only.
func (e *Encoder) verifyFloats(b []byte, ts []int64, vs []float64, st []int64) {
	d := Decoder{Base: e.Base}
	gotT, gotV, gotS, err := d.Floats(b, nil, nil, nil)
	same := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
	if err != nil || !slices.Equal(gotT, ts) || !slices.Equal(gotS, st) || !slices.EqualFunc(gotV, vs, same) {
		panic("chunk: floats don't come back as they were")
	}
}

// verifyBlobs is verifyFloats for blobs.
func (e *Encoder) verifyBlobs(b []byte, ts, st []int64, blobs [][]byte) {
	d := Decoder{Base: e.Base}
	gotT, gotS, gotB, err := d.Blobs(b, nil, nil, nil)
	if err != nil || !slices.Equal(gotT, ts) || !slices.Equal(gotS, st) || !slices.EqualFunc(gotB, blobs, bytes.Equal) {
		panic("chunk: blobs don't come back as they were")
	}
}
