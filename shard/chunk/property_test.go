package chunk

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// anyInts draws columns that are anything from straight to random, with outliers.
func anyInts() *rapid.Generator[[]int64] {
	return rapid.Custom(func(t *rapid.T) []int64 {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		noise := rapid.IntRange(0, 63).Draw(t, "noise bits")
		shift := rapid.IntRange(0, 63).Draw(t, "shift")
		slope := rapid.Int64().Draw(t, "slope") >> rapid.IntRange(0, 63).Draw(t, "slope shift")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		xs := make([]int64, n)
		at := rapid.Int64().Draw(t, "first")
		for i := range xs {
			xs[i] = at + r.Int64()>>(63-noise)<<shift
			if r.IntN(50) == 0 {
				xs[i] = int64(r.Uint64())
			}
			at += slope
		}
		return xs
	})
}

func TestEveryTransformIsReversible(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := anyInts().Draw(t, "column")
		pr := profileOf(xs)
		for id := range byte(255) {
			p := intPlan{t: transformOf(id)}
			if p.t == nil || id == idLinear || id == idSchedule {
				continue
			}
			if len(xs) < 2 && (id == idLine || id == idDeltaOfD) {
				continue // never chosen: such a column is straight
			}
			p.prepare(xs, &pr)
			p.divide(noFit)
			var e Encoder
			b := e.appendInts(nil, &p, 0)
			if len(b) != p.size && len(p.u) > 0 {
				t.Fatalf("transform %d: planned %d bytes, wrote %d", id, p.size, len(b))
			}
			var d Decoder
			got := make([]int64, len(xs))
			rest, err := d.ints(b[0], b[1:], got, 0)
			if err != nil || len(rest) != 0 || !slices.Equal(got, xs) {
				t.Fatalf("transform %d: got %v, %d bytes left, %v; want %v", id, got, len(rest), err, xs)
			}
		}
	})
}

func TestPlannedSizeIsWritten(t *testing.T) {
	var e Encoder
	for i, col := range columns() {
		for _, n := range []int{2, 32, 240} {
			vs := col.values(rand.New(rand.NewPCG(uint64(i), uint64(n))), n)
			e.facts = facts{equal: allEqual(vs)}
			if !e.facts.equal {
				e.facts.exp, e.facts.scalable = e.scale(vs)
			}
			for _, c := range candidates() {
				size := c.size(&e, vs, noFit)
				if size == noFit {
					continue
				}
				b := c.append(&e, nil, vs)
				if len(b) != size {
					t.Errorf("%s: encoding %d planned %d bytes, wrote %d", col.name, c.id(), size, len(b))
				}
				var d Decoder
				got := make([]float64, n)
				if err := c.decode(&d, b, got); err != nil {
					t.Errorf("%s: encoding %d: %v", col.name, c.id(), err)
				}
				for j := range got {
					if math.Float64bits(got[j]) != math.Float64bits(vs[j]) {
						t.Fatalf("%s: encoding %d: value %d is %v, want %v", col.name, c.id(), j, got[j], vs[j])
					}
				}
			}
		}
	}
}

func TestPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.IntRange(1, MaxSamples).Draw(t, "m")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		k := rapid.IntRange(1, m).Draw(t, "k")
		pos := make([]uint16, 0, k)
		for _, p := range r.Perm(m)[:k] {
			pos = append(pos, uint16(p))
		}
		slices.Sort(pos)
		scratch := make([]uint64, k)
		b := appendPositions(nil, pos, m, scratch)
		if len(b) != positionsLen(m, k) {
			t.Fatalf("planned %d bytes, wrote %d", positionsLen(m, k), len(b))
		}
		got := make([]uint16, k)
		rest, ok := readPositions(append(b, 1), got, m, scratch)
		if !ok || len(rest) != 1 || !slices.Equal(got, pos) {
			t.Fatalf("got %v, %d bytes left, %v; want %v", got, len(rest), ok, pos)
		}
	})
}

func TestPackEveryWidth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for width := range uint(65) {
		for _, n := range []int{1, 2, 3, 5, 31, 64, 257} {
			u, got := make([]uint64, n), make([]uint64, n)
			for i := range u {
				u[i] = r.Uint64()
			}
			b := appendPacked([]byte{9}, u, width)
			if len(b) != 1+packedLen(n, width) {
				t.Fatalf("width %d: %d values in %d bytes", width, n, len(b)-1)
			}
			for _, extra := range []int{0, 1, 7, 8, 20} {
				unpack(got, append(slices.Clone(b[1:]), make([]byte, extra)...), width)
				for i := range u {
					if got[i] != u[i]&maskOf(width) {
						t.Fatalf("width %d, value %d of %d: got %x, want %x", width, i, n, got[i], u[i]&maskOf(width))
					}
				}
			}
		}
	}
}

func TestDecimalOf(t *testing.T) {
	for _, c := range []struct {
		v   float64
		d   int64
		exp int
	}{
		{0, 0, 0}, {1, 1, 0}, {-7, -7, 0}, {0.1, 1, 1}, {-0.25, -25, 2}, {123.456, 123456, 3},
		{1e-9, 1, 9}, {0.000123456789, 123456789, 12}, {1e15, 1e15, 0}, {1 << 62, 1 << 62, 0},
		{9999999999.9999, 99999999999999, 4},
	} {
		if d, exp, ok := decimalOf(c.v); !ok || d != c.d || exp != c.exp {
			t.Errorf("%v: got %d, %d, %v; want %d, %d", c.v, d, exp, ok, c.d, c.exp)
		}
	}
	tenth := 0.1
	for _, v := range []float64{
		math.Pi, 1.0 / 3, 999999999999.9999, tenth + 0.2, math.NaN(), stale(), math.Inf(1), math.Copysign(0, -1),
		math.SmallestNonzeroFloat64, math.MaxFloat64, 1 << 63 * 2, 1e300,
	} {
		if d, exp, ok := decimalOf(v); ok {
			t.Errorf("%v: got %d, %d", v, d, exp)
		}
	}
}

// Chunks one after another into the same slices: start timestamps appear only in some.
func TestAppendsAndPadsStartTimestamps(t *testing.T) {
	var e Encoder
	var d Decoder
	plain := e.Floats(nil, []int64{1, 2}, []float64{1, 2}, nil)
	with := e.Floats(nil, []int64{3, 4}, []float64{3, 4}, []int64{30, 40})
	ts, vs, st, err := d.Floats(plain, nil, nil, nil)
	if err != nil || len(st) != 0 {
		t.Fatalf("got %v, %v; want no start timestamps", st, err)
	}
	for _, b := range [][]byte{with, plain} {
		if ts, vs, st, err = d.Floats(b, ts, vs, st); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(ts, []int64{1, 2, 3, 4, 1, 2}) || !slices.Equal(vs, []float64{1, 2, 3, 4, 1, 2}) ||
		!slices.Equal(st, []int64{0, 0, 30, 40, 0, 0}) {
		t.Fatalf("got %v, %v, %v", ts, vs, st)
	}
	// Memory that a caller reuses holds old values; padding must not let them through.
	dirty := []int64{9, 9, 9, 9, 9, 9}[:0]
	_, _, st, err = d.Floats(with, []int64{0}, []float64{0}, dirty)
	if err != nil || !slices.Equal(st, []int64{0, 30, 40}) {
		t.Fatalf("got %v, %v", st, err)
	}
}

func TestBlobsRoundTrip(t *testing.T) {
	var e Encoder
	var d Decoder
	for n := 1; n < 400; n += 37 {
		r := rand.New(rand.NewPCG(uint64(n), 0))
		ts := times(r, n%manners, n)
		var st []int64
		if n%2 == 0 {
			st = times(r, 1, n)
		}
		blobs := make([][]byte, n)
		for i := range blobs {
			blobs[i] = make([]byte, r.IntN(100))
			for j := range blobs[i] {
				blobs[i][j] = byte(r.Uint32())
			}
		}
		checkBlobs(t, &d, e.Blobs(nil, ts, st, blobs), ts, st, blobs)
	}
}

func checkBlobs(t *testing.T, d *Decoder, b []byte, ts, st []int64, blobs [][]byte) {
	t.Helper()
	gotT, gotS, gotB, err := d.Blobs(b, nil, nil, nil)
	if err != nil || !slices.Equal(gotT, ts) || !slices.Equal(gotS, st) || !slices.EqualFunc(gotB, blobs, bytes.Equal) {
		t.Fatalf("got %v, %v, %v, %v; want %v, %v, %v", gotT, gotS, gotB, err, ts, st, blobs)
	}
}

func TestBase(t *testing.T) {
	ts := []int64{1790000000123, 1790000015123, 1790000030123}
	vs := []float64{1, 2, 4}
	var e Encoder
	far := len(e.Floats(nil, ts, vs, nil))
	e.Base = ts[0]
	b := e.Floats(nil, ts, vs, nil)
	if len(b) != far-5 {
		t.Errorf("got %d bytes with a base, %d without, want 5 fewer", len(b), far)
	}
	checkFloats(t, &Decoder{Base: ts[0]}, b, ts, vs, nil)
}

func TestDamagedChunks(t *testing.T) {
	var e Encoder
	var d Decoder
	held := []int64{1, 2, 3}
	for i, col := range columns() {
		r := rand.New(rand.NewPCG(uint64(i), 0))
		vs, ts := col.values(r, 50), times(r, i%manners, 50)
		b := e.Floats(nil, ts, vs, times(r, 1, 50))
		for cut := range b {
			got, _, _, err := d.Floats(b[:cut], held, nil, nil)
			if err == nil || len(got) != len(held) {
				t.Fatalf("%s: cut to %d of %d bytes: %d timestamps, %v; want an error", col.name, cut, len(b), len(got), err)
			}
			checkError(t, err)
		}
		if _, _, _, err := d.Floats(append(slices.Clone(b), 0), nil, nil, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: a byte too many: got %v, want ErrCorrupt", col.name, err)
		}
		for at := range b {
			for bit := range 8 {
				c := slices.Clone(b)
				c[at] ^= 1 << bit
				// What comes out can't be known: only that it stays within bounds.
				if got, _, _, err := d.Floats(c, nil, nil, nil); err != nil {
					checkError(t, err)
				} else if len(got) > MaxSamples {
					t.Fatalf("%s: bit %d of byte %d: %d samples", col.name, bit, at, len(got))
				}
			}
		}
	}
}

func TestUnknownEncodings(t *testing.T) {
	var e Encoder
	var d Decoder
	ts, st := []int64{10, 1010, 2010}, []int64{5, 6, 7}
	b := e.Floats(nil, ts, []float64{1, 2, 3}, st)
	// count, mode, first, base of the timestamps; the same without count for start
	// timestamps; id, mode, first, base of the values.
	for _, at := range []int{1, 4, 7, 8} {
		c := slices.Clone(b)
		c[at] = c[at]&hasStarts | 0x3e
		if _, _, _, err := d.Floats(c, nil, nil, nil); !errors.Is(err, ErrUnknownEncoding) {
			t.Errorf("byte %d of %x: got %v, want ErrUnknownEncoding", at, c, err)
		}
	}
	b = e.Blobs(nil, ts, nil, [][]byte{{1}, {2}, {3}})
	for _, at := range []int{1, 4, 5} {
		c := slices.Clone(b)
		c[at] = 0x3e
		if _, _, _, err := d.Blobs(c, nil, nil, nil); !errors.Is(err, ErrUnknownEncoding) {
			t.Errorf("byte %d of %x: got %v, want ErrUnknownEncoding", at, c, err)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var e Encoder
	var d Decoder
	var b []byte
	var ts []int64
	var vs []float64
	var st []int64
	for i, col := range columns() {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		in, at := col.values(r, 240), times(r, i%manners, 240)
		starts := times(r, 2, 240)
		allocs := testing.AllocsPerRun(5, func() {
			b = e.Floats(b[:0], at, in, starts)
			ts, vs, st, _ = d.Floats(b, ts[:0], vs[:0], st[:0])
		})
		// The first shapes still grow the scratch.
		if allocs > 0 && !invariants {
			t.Errorf("%s: %v allocations", col.name, allocs)
		}
	}
}
