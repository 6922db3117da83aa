package index

import (
	"math/bits"
	"slices"
)

// gallop returns the first index at or after from whose element is at least x,
// in steps that double: the cost grows with the distance, not with the list.
func gallop(list []uint32, from int, x uint32) int {
	if from >= len(list) || list[from] >= x {
		return from
	}
	lo, step := from, 1
	for lo+step < len(list) && list[lo+step] < x {
		lo += step
		step *= 2
	}
	hi := min(lo+step, len(list))
	for lo++; lo < hi; {
		if mid := int(uint(lo+hi) >> 1); list[mid] < x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// intersect appends to dst what a and b share. dst may be a[:0].
func intersect(dst, a, b []uint32) []uint32 {
	if len(a) > len(b) && cap(dst) == 0 {
		a, b = b, a
	}
	j := 0
	for i := 0; i < len(a); i++ {
		x := a[i]
		if j = gallop(b, j, x); j == len(b) {
			break
		}
		if y := b[j]; y == x {
			dst = append(dst, x)
			j++
		} else if len(a)-i > 8 && i+8 < len(a) && a[i+8] < y {
			i = gallop(a, i+8, y) - 1
		}
	}
	return dst
}

// intersects tells whether a and b share an element.
func intersects(a, b []uint32) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	j := 0
	for _, x := range a {
		if j = gallop(b, j, x); j == len(b) {
			return false
		}
		if b[j] == x {
			return true
		}
	}
	return false
}

// without appends to dst what is in a and not in b. dst may be a[:0].
func without(dst, a, b []uint32) []uint32 {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch x, y := a[i], b[j]; {
		case x == y:
			i++
			j++
		case x > y:
			j = gallop(b, j, x)
		default:
			k := gallop(a, i, y)
			dst = append(dst, a[i:k]...)
			i = k
		}
	}
	return append(dst, a[i:]...)
}

// sortSet sorts ids, which are what several lists hold one after another, and
// drops what is repeated. Dense sets are sorted through a bitmap in linear time.
func sortSet(ids []uint32) []uint32 {
	sorted := true
	var lo, hi uint32
	for i, x := range ids {
		if i == 0 {
			lo, hi = x, x
			continue
		}
		sorted = sorted && ids[i-1] < x
		lo, hi = min(lo, x), max(hi, x)
	}
	if sorted {
		return ids
	}
	span := uint64(hi-lo) + 1
	if span/64 > 2*uint64(len(ids)) {
		slices.Sort(ids)
		return slices.Compact(ids)
	}
	words := make([]uint64, (span+63)/64)
	for _, x := range ids {
		words[(x-lo)/64] |= 1 << ((x - lo) % 64)
	}
	ids = ids[:0]
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			ids = append(ids, lo+uint32(i)*64+uint32(bits.TrailingZeros64(w)))
		}
	}
	return ids
}
