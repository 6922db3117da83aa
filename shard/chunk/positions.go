package chunk

import (
	"encoding/binary"
	"math/bits"
)

// A set of k ascending positions below m is written either as a bitmap of m bits,
// or in the form of Elias and Fano (P. Elias, 1974; R. Fano, 1971), whichever is
// shorter: the low bits of each position packed, then the high bits as a bitmap in
// which position i sets the bit (high bits)+i. Both sides know m and k, so the
// choice and the split need no byte of their own.

// splitOf is the number of low bits: floor(log2(m/k)), which is within a fraction
// of a bit per position of the best.
func splitOf(m, k int) uint {
	l := uint(bits.Len(uint(m)) - bits.Len(uint(k)))
	if l > 0 && k<<l > m {
		l--
	}
	return l
}

// positionsLen is the number of bytes that k positions below m take.
func positionsLen(m, k int) int {
	return min((m+7)>>3, eliasFanoLen(m, k, splitOf(m, k)))
}

func eliasFanoLen(m, k int, split uint) int {
	return packedLen(k, split) + (k+m>>split+7)>>3
}

// appendPositions appends pos, which is ascending and below m. It uses scratch,
// which is at least as long as pos.
func appendPositions(dst []byte, pos []uint16, m int, scratch []uint64) []byte {
	split := splitOf(m, len(pos))
	if eliasFanoLen(m, len(pos), split) >= (m+7)>>3 {
		at := len(dst)
		dst = appendZeros(dst, (m+7)>>3)
		for _, p := range pos {
			dst[at+int(p>>3)] |= 1 << (p & 7)
		}
		return dst
	}
	for i, p := range pos {
		scratch[i] = uint64(p)
	}
	dst = appendPacked(dst, scratch[:len(pos)], split)
	at := len(dst)
	dst = appendZeros(dst, (len(pos)+m>>split+7)>>3)
	for i, p := range pos {
		j := int(p>>split) + i
		dst[at+j>>3] |= 1 << (j & 7)
	}
	return dst
}

// readPositions fills pos with positions below m and returns what follows them; ok
// is false if the bytes don't hold exactly len(pos) positions. It uses scratch, which
// is at least as long as pos.
func readPositions(b []byte, pos []uint16, m int, scratch []uint64) (rest []byte, ok bool) {
	k := len(pos)
	split := splitOf(m, k)
	size := eliasFanoLen(m, k, split)
	if size >= (m+7)>>3 {
		size = (m + 7) >> 3
		if len(b) < size || !setBits(b[:size], pos) || int(pos[k-1]) >= m {
			return nil, false
		}
		return b[size:], true
	}
	if len(b) < size {
		return nil, false
	}
	low := packedLen(k, split)
	if !setBits(b[low:size], pos) {
		return nil, false
	}
	scratch = scratch[:k]
	unpack(scratch, b, split)
	for i := range pos {
		p := int(pos[i])
		p = (p-i)<<split | int(scratch[i])
		if p >= m {
			return nil, false
		}
		pos[i] = uint16(p)
	}
	return b[size:], true
}

// setBits fills pos with the places of the bits that are set in b; ok is false if
// their number is not len(pos).
func setBits(b []byte, pos []uint16) (ok bool) {
	n := 0
	for at := 0; at < len(b); at += 8 {
		var w uint64
		if at+8 <= len(b) {
			w = binary.LittleEndian.Uint64(b[at:])
		} else {
			for i, c := range b[at:] {
				w |= uint64(c) << (8 * i)
			}
		}
		if n+bits.OnesCount64(w) > len(pos) {
			return false
		}
		for ; w != 0; w &= w - 1 {
			pos[n] = uint16(at*8 + bits.TrailingZeros64(w))
			n++
		}
	}
	return n == len(pos)
}

func appendZeros(dst []byte, n int) []byte {
	for ; n >= 8; n -= 8 {
		dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	for ; n > 0; n-- {
		dst = append(dst, 0)
	}
	return dst
}
