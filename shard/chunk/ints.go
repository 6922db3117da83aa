package chunk

import "encoding/binary"

// Ids of the encodings of a column of int64s. Never renumber.
const (
	intsLinear byte = 1 // first, step
	intsDelta  byte = 2 // first, smallest delta, width, packed differences to it
)

func appendInts(dst []byte, xs []int64, scratch []uint64) []byte {
	dst = binary.AppendUvarint(dst, zigzag(xs[0]))
	if len(xs) == 1 {
		return dst
	}
	lo, hi := xs[1]-xs[0], xs[1]-xs[0]
	for i := 1; i < len(xs); i++ {
		d := xs[i] - xs[i-1]
		lo, hi = min(lo, d), max(hi, d)
	}
	dst = binary.AppendUvarint(dst, zigzag(lo))
	w := bitLen(uint64(hi) - uint64(lo))
	dst = append(dst, byte(w))
	scratch = scratch[:0]
	for i := 1; i < len(xs); i++ {
		scratch = append(scratch, uint64(xs[i]-xs[i-1])-uint64(lo))
	}
	return appendPacked(dst, scratch, w)
}

func decodeInts(b []byte, dst []int64, scratch []uint64) ([]byte, error) {
	x, b, ok := readZigzag(b)
	if !ok {
		return nil, ErrCorrupt
	}
	dst[0] = x
	if len(dst) == 1 {
		return b, nil
	}
	lo, b, ok := readZigzag(b)
	if !ok || len(b) < 1 || b[0] > 64 {
		return nil, ErrCorrupt
	}
	w := uint(b[0])
	b = b[1:]
	size := packedLen(len(dst)-1, w)
	if len(b) < size {
		return nil, ErrCorrupt
	}
	scratch = scratch[:len(dst)-1]
	unpack(scratch, b, w)
	for i, u := range scratch {
		x += lo + int64(u)
		dst[i+1] = x
	}
	return b[size:], nil
}
