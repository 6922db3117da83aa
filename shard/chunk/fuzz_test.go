package chunk

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// addGolden seeds a fuzz target with the checked-in chunks.
func addGolden(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join("testdata", "v1", "*.chunk"))
	if err != nil || len(paths) == 0 {
		f.Fatal("no checked-in chunks", err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// checkError fails unless err is one of the errors that decoders may return.
func checkError(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknownEncoding) {
		t.Fatalf("untyped error: %v", err)
	}
}

func FuzzDecodeFloats(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		ts, vs, st, err := d.Floats(b, []int64{1}, []float64{2}, []int64{3})
		if err != nil {
			checkError(t, err)
			if len(ts) != 1 || len(vs) != 1 || len(st) != 1 {
				t.Fatal("slices grew in spite of an error")
			}
			return
		}
		if len(ts) > 1+MaxSamples || len(vs) != len(ts) || len(st) != len(ts) {
			t.Fatalf("%d timestamps, %d values, %d start timestamps", len(ts), len(vs), len(st))
		}
		var e Encoder
		checkFloats(t, &d, e.Floats(nil, ts[1:], vs[1:], st[1:]), ts[1:], vs[1:], st[1:])
	})
}

func FuzzDecodeBlobs(f *testing.F) {
	addGolden(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Decoder
		ts, st, blobs, err := d.Blobs(b, nil, nil, nil)
		if err != nil {
			checkError(t, err)
			return
		}
		total := 0
		for _, x := range blobs {
			total += len(x)
		}
		if len(blobs) != len(ts) || len(ts) > MaxSamples || total > len(b) || (len(st) != 0 && len(st) != len(ts)) {
			t.Fatalf("%d timestamps, %d start timestamps, %d blobs of %d bytes from %d", len(ts), len(st), len(blobs), total, len(b))
		}
		var e Encoder
		checkBlobs(t, &d, e.Blobs(nil, ts, st, blobs), ts, st, blobs)
	})
}

// FuzzRoundTrip takes 16 bytes a sample: a timestamp's distance and a value. The first
// byte says what becomes of them, so that all encodings are within reach.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range samples() {
		for how := range byte(8) {
			b := []byte{how}
			for i, v := range s.vs {
				b = binary.LittleEndian.AppendUint64(b, uint64(s.ts[i]))
				b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 17 {
			return
		}
		how := b[0]
		n := min((len(b)-1)/16, MaxSamples)
		ts, vs := make([]int64, n), make([]float64, n)
		at := int64(0)
		for i := range n {
			x, v := binary.LittleEndian.Uint64(b[1+16*i:]), binary.LittleEndian.Uint64(b[9+16*i:])
			if how&1 != 0 {
				x &= 0xffff
			}
			at += int64(x)
			ts[i], vs[i] = at, math.Float64frombits(v)
			if how&2 != 0 {
				vs[i] = float64(int64(v) >> (how >> 4 << 2))
			}
			if how&4 != 0 {
				vs[i] = float64(int64(v)>>40) / 1000
			}
		}
		var st []int64
		if how&8 != 0 {
			st = slices.Clone(ts)
			slices.Reverse(st)
		}
		var e Encoder
		var d Decoder
		checkFloats(t, &d, e.Floats(nil, ts, vs, st), ts, vs, st)
	})
}

func FuzzReadStats(f *testing.F) {
	for _, s := range samples() {
		f.Add(AppendStats(nil, StatsOf(s.vs)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, err := ReadStats(b)
		if err != nil {
			checkError(t, err)
			return
		}
		if len(rest) >= len(b) {
			t.Fatal("nothing was read")
		}
		again, _, err := ReadStats(AppendStats(nil, s))
		if err != nil || !sameStats(again, s) {
			t.Fatalf("got %+v, %v; want %+v", again, err, s)
		}
	})
}
