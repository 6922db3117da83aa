package chunk

import (
	"encoding/binary"
	"math/bits"
)

// packedLen is the number of bytes that n values of width bits take.
func packedLen(n int, width uint) int { return (n*int(width) + 7) / 8 }

// bitLen is the number of bits that u needs.
func bitLen(u uint64) uint { return uint(bits.Len64(u)) }

// appendPacked appends the low width bits of each value, least significant bit
// first, without gaps; the last byte is filled up with zeros.
func appendPacked(dst []byte, vals []uint64, width uint) []byte {
	if width == 0 {
		return dst
	}
	var acc uint64
	var fill uint
	for _, v := range vals {
		v &= maskOf(width)
		acc |= v << fill
		fill += width
		if fill >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			fill -= 64
			acc = v >> (width - fill) // a shift by 64 or more gives 0
		}
	}
	for ; fill > 0; fill -= min(fill, 8) {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
}

// unpack fills dst with values of width bits from b, which holds at least
// packedLen(len(dst), width) bytes.
func unpack(dst []uint64, b []byte, width uint) {
	if width == 0 {
		clear(dst)
		return
	}
	mask := maskOf(width)
	i, bit := 0, uint(0)
	// While 16 bytes are left every value is got by two loads without a check of its own.
	for ; i < len(dst); i++ {
		at := int(bit >> 3)
		if at+16 > len(b) {
			break
		}
		s := bit & 7
		u := binary.LittleEndian.Uint64(b[at:]) >> s
		u |= uint64(b[at+8]) << (64 - s) // a shift by 64 gives 0
		dst[i] = u & mask
		bit += width
	}
	for ; i < len(dst); i++ {
		dst[i] = unpackOne(b, bit, width)
		bit += width
	}
}

// unpackOne reads width bits at position bit.
func unpackOne(b []byte, bit, width uint) uint64 {
	var u uint64
	for got := uint(0); got < width; {
		s := (bit + got) & 7
		u |= uint64(b[(bit+got)>>3]>>s) << got
		got += 8 - s
	}
	return u & maskOf(width)
}

func maskOf(width uint) uint64 { return 1<<width - 1 } // 1<<64 is 0, so that 64 gives all ones

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

func readZigzag(b []byte) (int64, []byte, bool) {
	u, rest, ok := readUvarint(b)
	return unzigzag(u), rest, ok
}
