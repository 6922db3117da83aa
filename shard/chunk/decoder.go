package chunk

import (
	"encoding/binary"
	"math"
	"slices"
)

// Decoder expands chunks into columns. It is reusable scratch memory for one
// goroutine at a time; the zero value is ready for use.
type Decoder struct {
	u [MaxSamples]uint64
	x [MaxSamples]int64
}

// Floats appends the samples of chunk b to ts, vs and st. If neither this chunk nor
// one before it (as st tells) has start timestamps, st stays empty; else st ends as
// long as ts, with 0 for samples that have none. It fails with ErrCorrupt or
// ErrUnknownEncoding, and then returns the slices with what they held.
func (d *Decoder) Floats(b []byte, ts []int64, vs []float64, st []int64) ([]int64, []float64, []int64, error) {
	ts2, st2, b, err := d.times(b, ts, st)
	if err != nil {
		return ts, vs, st, err
	}
	n := len(ts2) - len(ts)
	if len(b) == 0 || len(b) != 1+8*n {
		return ts, vs, st, ErrCorrupt
	}
	if b[0] != 1 {
		return ts, vs, st, ErrUnknownEncoding
	}
	for i := 0; i < n; i++ {
		vs = append(vs, math.Float64frombits(binary.LittleEndian.Uint64(b[1+8*i:])))
	}
	return ts2, vs, st2, nil
}

// Blobs appends the samples of chunk b to ts, st and blobs, as Floats does. The
// blobs alias b.
func (d *Decoder) Blobs(b []byte, ts, st []int64, blobs [][]byte) ([]int64, []int64, [][]byte, error) {
	ts2, st2, b, err := d.times(b, ts, st)
	if err != nil {
		return ts, st, blobs, err
	}
	n := len(ts2) - len(ts)
	if len(b) == 0 {
		return ts, st, blobs, ErrCorrupt
	}
	if b[0] != 1 {
		return ts, st, blobs, ErrUnknownEncoding
	}
	b, err = decodeInts(b[1:], d.x[:n], d.u[:0])
	if err != nil {
		return ts, st, blobs, err
	}
	out := blobs
	for _, l := range d.x[:n] {
		if l < 0 || l > int64(len(b)) {
			return ts, st, blobs, ErrCorrupt
		}
		out = append(out, b[:l:l])
		b = b[l:]
	}
	if len(b) != 0 {
		return ts, st, blobs, ErrCorrupt
	}
	return ts2, st2, out, nil
}

// Timestamps appends the timestamps of chunk b, of any kind, to ts.
func (d *Decoder) Timestamps(b []byte, ts []int64) ([]int64, error) {
	out, _, _, err := d.times(b, ts, nil)
	if err != nil {
		return ts, err
	}
	return out, nil
}

// times decodes the head of a chunk and returns what follows it.
func (d *Decoder) times(b []byte, ts, st []int64) (ts2, st2 []int64, rest []byte, err error) {
	n, b, ok := readUvarint(b)
	if !ok || n == 0 || n > MaxSamples || len(b) < 1 {
		return nil, nil, nil, ErrCorrupt
	}
	id := b[0]
	if id&^hasStarts != intsDelta {
		return nil, nil, nil, ErrUnknownEncoding
	}
	had := len(ts)
	ts = slices.Grow(ts, int(n))[:had+int(n)]
	b, err = decodeInts(b[1:], ts[had:], d.u[:0])
	if err != nil {
		return nil, nil, nil, err
	}
	if id&hasStarts == 0 {
		if len(st) > 0 {
			st = padStarts(st, len(ts))
		}
		return ts, st, b, nil
	}
	if len(b) < 1 {
		return nil, nil, nil, ErrCorrupt
	}
	if b[0] != intsDelta {
		return nil, nil, nil, ErrUnknownEncoding
	}
	st = padStarts(st, len(ts))
	b, err = decodeInts(b[1:], st[had:], d.u[:0])
	if err != nil {
		return nil, nil, nil, err
	}
	return ts, st, b, nil
}

// padStarts lengthens st to n with zeros.
func padStarts(st []int64, n int) []int64 {
	had := len(st)
	if had >= n {
		return st[:n]
	}
	st = slices.Grow(st, n-had)[:n]
	clear(st[had:])
	return st
}
