package chunk

import "slices"

// Decoder expands chunks into columns. It is reusable scratch memory for one
// goroutine at a time; the zero value is ready for use.
type Decoder struct {
	// Base is what Encoder.Base was when the chunks were written.
	Base int64

	head    intHead
	u, tmp  []uint64
	x       []int64
	pos     []uint16
	sel     []uint16
	misfits []uint16
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
	had, n := len(vs), len(ts2)-len(ts)
	vs2 := slices.Grow(vs, n)[:had+n]
	if err := d.decodeValues(b, vs2[had:]); err != nil {
		return ts, vs, st, err
	}
	return ts2, vs2, st2, nil
}

// Blobs appends the samples of chunk b to ts, st and blobs, as Floats does. The
// blobs alias b.
func (d *Decoder) Blobs(b []byte, ts, st []int64, blobs [][]byte) ([]int64, []int64, [][]byte, error) {
	ts2, st2, b, err := d.times(b, ts, st)
	if err != nil {
		return ts, st, blobs, err
	}
	out, err := d.plainBlobs(b, len(ts2)-len(ts), blobs)
	if err != nil {
		return ts, st, blobs, err
	}
	return ts2, st2, out, nil
}

// plainBlobs appends n blobs, which fill b.
func (d *Decoder) plainBlobs(b []byte, n int, out [][]byte) ([][]byte, error) {
	if len(b) < 2 {
		return nil, ErrCorrupt
	}
	if b[0] != idBlobsPlain {
		return nil, ErrUnknownEncoding
	}
	if b[1]&hasStarts != 0 {
		return nil, ErrCorrupt
	}
	d.x = resize(d.x, n)
	b, err := d.ints(b[1], b[2:], d.x, 0)
	if err != nil {
		return nil, err
	}
	for _, l := range d.x {
		if l < 0 || l > int64(len(b)) {
			return nil, ErrCorrupt
		}
		out = append(out, b[:l:l])
		b = b[l:]
	}
	if len(b) != 0 {
		return nil, ErrCorrupt
	}
	return out, nil
}

// Timestamps appends the timestamps of chunk b, of any kind, to ts. It does not look at
// what follows them. It fails with ErrCorrupt or ErrUnknownEncoding.
func (d *Decoder) Timestamps(b []byte, ts []int64) ([]int64, error) {
	out, _, _, err := d.timestamps(b, ts)
	if err != nil {
		return ts, err
	}
	return out, nil
}

// timestamps decodes the head of a chunk up to the timestamps, and returns what follows
// and whether that begins with start timestamps.
func (d *Decoder) timestamps(b []byte, ts []int64) (out []int64, rest []byte, starts bool, err error) {
	n, b, ok := readUvarint(b)
	if !ok || n == 0 || n > MaxSamples || len(b) == 0 {
		return nil, nil, false, ErrCorrupt
	}
	had := len(ts)
	out = slices.Grow(ts, int(n))[:had+int(n)]
	mode := b[0]
	rest, err = d.ints(mode, b[1:], out[had:], d.Base)
	return out, rest, mode&hasStarts != 0, err
}

// times decodes timestamps and start timestamps and returns what follows them.
func (d *Decoder) times(b []byte, ts, st []int64) (ts2, st2 []int64, rest []byte, err error) {
	ts2, b, starts, err := d.timestamps(b, ts)
	if err != nil {
		return nil, nil, nil, err
	}
	if !starts {
		if len(st) > 0 {
			st = padStarts(st, len(ts2))
		}
		return ts2, st, b, nil
	}
	if len(b) == 0 || b[0]&hasStarts != 0 {
		return nil, nil, nil, ErrCorrupt
	}
	// Chunks before this one may have had none.
	st = padStarts(st, len(ts2))
	rest, err = d.ints(b[0], b[1:], st[len(ts):], 0)
	return ts2, st, rest, err
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
