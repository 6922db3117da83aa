package chunk

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// packedLen is the number of bytes that n values of width bits take.
func packedLen(n int, width uint) int { return (n*int(width) + 7) >> 3 }

// bitLen is the number of bits that u needs.
func bitLen(u uint64) uint { return uint(bits.Len64(u)) }

// maskOf has the low width bits set. 1<<64 is 0 in Go, so that 64 gives all ones.
func maskOf(width uint) uint64 { return 1<<width - 1 }

// appendPacked appends the low width bits of each value, least significant bit
// first, without gaps; the last byte is filled up with zeros.
func appendPacked(dst []byte, vals []uint64, width uint) []byte {
	if width == 0 || len(vals) == 0 {
		return dst
	}
	// Whole words are stored, so the last may reach past the end: grow for it, then cut.
	end := len(dst) + packedLen(len(vals), width)
	dst = slices.Grow(dst, packedLen(len(vals), width)+8)
	out := dst[len(dst) : end+8]
	mask := maskOf(width)
	var acc uint64
	var fill uint
	at := 0
	for _, v := range vals {
		v &= mask
		acc |= v << (fill & 63)
		fill += width
		if fill >= 64 {
			binary.LittleEndian.PutUint64(out[at:], acc)
			at += 8
			fill -= 64
			acc = v >> (width - fill) // a shift by 64 gives 0
		}
	}
	binary.LittleEndian.PutUint64(out[at:], acc)
	return dst[:end]
}

// unpack fills dst with values of width bits from b. Only the first
// packedLen(len(dst), width) bytes are values, and b must hold them, but unpack is
// faster if more bytes follow.
func unpack(dst []uint64, b []byte, width uint) {
	switch {
	case width == 0:
		clear(dst)
		return
	case width > 56:
		unpackWide(dst, b, width)
		return
	}
	// A load of 8 bytes holds any value of up to 56 bits whatever its place in its first byte.
	whole := 0
	if len(b) >= 8 {
		whole = min(len(dst), ((len(b)-8)*8+7)/int(width)+1)
	}
	unpackNarrow(dst[:whole], b, 0, width)
	if whole == len(dst) {
		return
	}
	// The rest lies in the last bytes: decode it from a copy with room behind it.
	bit := uint(whole) * width
	var tail [16]byte
	copy(tail[:8], b[bit>>3:])
	unpackNarrow(dst[whole:], tail[:], bit&7, width)
}

// unpackNarrow decodes values of up to 56 bits. Each must have 8 bytes to load; what
// fits one load is taken from one.
func unpackNarrow(dst []uint64, b []byte, bit, width uint) {
	mask := maskOf(width)
	switch {
	case width <= 14:
		for ; len(dst) >= 4; dst = dst[4:] {
			w := binary.LittleEndian.Uint64(b[bit>>3:]) >> (bit & 7)
			dst[0] = w & mask
			w >>= width
			dst[1] = w & mask
			w >>= width
			dst[2] = w & mask
			w >>= width
			dst[3] = w & mask
			bit += 4 * width
		}
	case width <= 28:
		for ; len(dst) >= 2; dst = dst[2:] {
			w := binary.LittleEndian.Uint64(b[bit>>3:]) >> (bit & 7)
			dst[0] = w & mask
			dst[1] = w >> width & mask
			bit += 2 * width
		}
	}
	for i := range dst {
		dst[i] = binary.LittleEndian.Uint64(b[bit>>3:]) >> (bit & 7) & mask
		bit += width
	}
}

// unpackWide decodes values of more than 56 bits.
func unpackWide(dst []uint64, b []byte, width uint) {
	for i := range dst {
		dst[i] = readBits(b, uint(i)*width, width)
	}
}

// readBits reads width bits at position bit; bits past the end of b are zero.
func readBits(b []byte, bit, width uint) uint64 {
	at, s := int(bit>>3), bit&7
	if at+9 <= len(b) {
		u := binary.LittleEndian.Uint64(b[at:])>>s | uint64(b[at+8])<<(64-s) // a shift by 64 gives 0
		return u & maskOf(width)
	}
	var tail [16]byte
	if at < len(b) {
		copy(tail[:], b[at:])
	}
	u := binary.LittleEndian.Uint64(tail[:])>>s | uint64(tail[8])<<(64-s)
	return u & maskOf(width)
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func uvarintLen(u uint64) int { return (bits.Len64(u|1) + 6) / 7 }

// readUvarint splits a varint off b; ok is false if there is none.
func readUvarint(b []byte) (u uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint64(b[0]), b[1:], true
	}
	u, w := binary.Uvarint(b)
	if w <= 0 {
		return 0, nil, false
	}
	return u, b[w:], true
}

func appendZigzag(dst []byte, v int64) []byte { return binary.AppendUvarint(dst, zigzag(v)) }

func readZigzag(b []byte) (int64, []byte, bool) {
	u, rest, ok := readUvarint(b)
	return unzigzag(u), rest, ok
}

// resize returns s with length n; what it holds is undefined.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, 256))
	}
	return s[:n]
}
