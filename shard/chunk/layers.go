package chunk

import "encoding/binary"

// Residuals are packed in layers. The first layer holds the low bits of every
// residual, all of one width. Those that have higher bits are listed by position,
// and the next layer holds the next bits of these alone, and so on until nothing is
// left. Metrics are bursty: most residuals are small and a few are large, and this
// costs a large one little more than its own bits. It is patched frame-of-reference
// (M. Zukowski et al., "Super-Scalar RAM-CPU Cache Compression", 2006) applied to its
// own patches, and it decodes with bulk unpacking instead of a branch per value.

// moreLayers marks, in the width byte of a layer, that another follows.
const moreLayers = 0x80

// layerPlan is the cheapest division of residuals into layers.
type layerPlan struct {
	n     int        // layers
	size  int        // bytes
	width [65]uint8  // of each layer
	count [65]uint16 // residuals that go on beyond each layer

	// What countLengths finds: how many residuals have each length up to top, and the sum.
	lens, odd [65]uint32
	top       uint
	bits      int

	// Scratch of plan.
	at, next [66]uint8
	over     [66]uint16
	cost     [66]int
}

// countLengths counts the residuals u by their number of bits.
func (p *layerPlan) countLengths(u []uint64) {
	var or uint64
	for _, v := range u {
		or |= v
	}
	top := bitLen(or)
	clear(p.lens[:top+1])
	clear(p.odd[:top+1])
	// Two tables, since equal neighbours are common, and one counter would wait for itself.
	i := 0
	for ; i+1 < len(u); i += 2 {
		p.lens[bitLen(u[i])]++
		p.odd[bitLen(u[i+1])]++
	}
	if i < len(u) {
		p.lens[bitLen(u[i])]++
	}
	sum := 0
	for l := range p.lens[:top+1] {
		p.lens[l] += p.odd[l]
		sum += l * int(p.lens[l])
	}
	p.top, p.bits = top, sum
}

// plan finds the division of the n residuals counted with the fewest bytes, by dynamic
// programming over the lengths that occur: the cost from a boundary on is that of one
// layer up to a higher boundary, plus the cost from there on. It stops with a size of
// limit or more when no division is below limit.
func (p *layerPlan) plan(n, limit int) {
	if p.size = (p.bits + 7) >> 3; p.size >= limit {
		return // no division is shorter than the bits themselves
	}
	// at holds the lengths that occur, ascending, behind a 0 to start from; over holds
	// how many residuals are longer.
	k, rest := 1, n
	p.at[0], p.over[0] = 0, uint16(rest)
	for l, c := range p.lens[:p.top+1] {
		if c != 0 {
			rest -= int(c)
			p.at[k], p.over[k] = uint8(l), uint16(rest)
			k++
		}
	}
	p.cost[k-1] = 0
	for i := k - 2; i >= 0; i-- {
		best, m := noFit, int(p.over[i])
		for j := i + 1; j < k; j++ {
			c := 1 + packedLen(m, uint(p.at[j]-p.at[i]))
			if c >= best {
				break // wider layers cost only more
			}
			if over := int(p.over[j]); over > 0 {
				if c += p.cost[j] + 2; c >= best {
					continue
				}
				c += uvarintLen(uint64(over)) - 2 + positionsLen(m, over)
			}
			if c < best {
				best, p.next[i] = c, uint8(j)
			}
		}
		p.cost[i] = best
	}
	p.n, p.size = 0, p.cost[0]
	for i := 0; i < k-1; {
		j := int(p.next[i])
		p.width[p.n], p.count[p.n] = p.at[j]-p.at[i], p.over[j]
		p.n++
		i = j
	}
}

// appendLayers appends residuals as planned. It overwrites u.
func (e *Encoder) appendLayers(dst []byte, u []uint64, p *layerPlan) []byte {
	for i := range p.n {
		w := uint(p.width[i])
		if p.count[i] == 0 {
			dst = append(dst, byte(w))
			return appendPacked(dst, u, w)
		}
		dst = append(dst, byte(w)|moreLayers)
		dst = binary.AppendUvarint(dst, uint64(p.count[i]))
		dst = appendPacked(dst, u, w)
		e.pos = resize(e.pos, len(u)+1)
		k := 0
		for j, v := range u {
			// Written always and kept only if the value goes on: no branch to mispredict.
			v >>= w
			u[k], e.pos[k] = v, uint16(j)
			if v != 0 {
				k++
			}
		}
		e.tmp = resize(e.tmp, k)
		dst = appendPositions(dst, e.pos[:k], len(u), e.tmp)
		u = u[:k]
	}
	return dst
}

// layers fills u with residuals and returns what follows them.
func (d *Decoder) layers(b []byte, u []uint64) ([]byte, error) {
	w, k, b, ok := readLayer(b, len(u))
	if !ok {
		return nil, ErrCorrupt
	}
	unpack(u, b, w)
	b = b[packedLen(len(u), w):]
	if k > 0 {
		d.tmp, d.pos, d.sel = resize(d.tmp, k), resize(d.pos, k), resize(d.sel, k)
	}
	done, m := w, len(u)
	for k > 0 {
		if b, ok = readPositions(b, d.sel[:k], m, d.tmp); !ok {
			return nil, ErrCorrupt
		}
		if m == len(u) {
			copy(d.pos, d.sel[:k])
		} else { // positions count within the layer below
			for i, s := range d.sel[:k] {
				d.pos[i] = d.pos[s]
			}
		}
		m = k
		if w, k, b, ok = readLayer(b, m); !ok || w == 0 || done+w > 64 {
			return nil, ErrCorrupt
		}
		unpack(d.tmp[:m], b, w)
		b = b[packedLen(m, w):]
		for i, v := range d.tmp[:m] {
			u[d.pos[i]] |= v << done
		}
		done += w
	}
	return b, nil
}

// readLayer reads the head of a layer of m residuals: their width, how many go on in
// the next layer, and the bytes that follow, which hold at least the residuals.
func readLayer(b []byte, m int) (width uint, more int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, 0, nil, false
	}
	id := b[0]
	width, b = uint(id&^moreLayers), b[1:]
	if id&moreLayers != 0 {
		var k uint64
		if k, b, ok = readUvarint(b); !ok || k == 0 || k > uint64(m) {
			return 0, 0, nil, false
		}
		more = int(k)
	}
	return width, more, b, width <= 64 && len(b) >= packedLen(m, width)
}
