package chunk

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// xor: each value's difference in bits to the value before, without the zeros at either
// end (T. Pelkonen et al., "Gorilla", 2015; the window is also given up when it wastes
// bits, as in P. Liakos et al., "Chimp", 2022). For values whose last bits are zero in
// places that vary.
//
//	0                             the same value
//	10 <window bits>              the bits that differ lie in the window of before
//	11 <6: low> <6: len-1> <bits> a new window: zeros below it, its length
type xor struct{}

// wasteLimit is how many bits a value may waste in the old window; a new one costs 12.
const wasteLimit = 12

func (xor) id() byte { return idXOR }

func (xor) size(_ *Encoder, vs []float64, limit int) int {
	prev := math.Float64bits(vs[0])
	n := 64
	var w xorWindow
	for i, v := range vs[1:] {
		x := math.Float64bits(v) ^ prev
		prev ^= x
		switch {
		case x == 0:
			n++
		case w.fits(x):
			n += 2 + int(w.length)
		default:
			w = windowOf(x)
			n += 14 + int(w.length)
		}
		// Most floats are no case for this encoding, and a few of them show it.
		if i&15 == 15 && n/(i+1) > 8*limit/len(vs)+2 {
			return noFit
		}
	}
	return (n + 7) / 8
}

// xorWindow is where the bits that differ lie: length bits above low zeros.
type xorWindow struct{ low, length uint }

func windowOf(x uint64) xorWindow {
	low := uint(bits.TrailingZeros64(x))
	return xorWindow{low, bitLen(x) - low}
}

// fits reports whether x, not 0, is to be written in w.
func (w xorWindow) fits(x uint64) bool {
	need := windowOf(x)
	return need.low >= w.low && need.low+need.length <= w.low+w.length &&
		w.length-need.length <= wasteLimit
}

func (xor) append(_ *Encoder, dst []byte, vs []float64) []byte {
	prev := math.Float64bits(vs[0])
	dst = binary.LittleEndian.AppendUint64(dst, prev)
	var w xorWindow
	o := bitWriter{dst: dst}
	for _, v := range vs[1:] {
		x := math.Float64bits(v) ^ prev
		prev ^= x
		switch {
		case x == 0:
			o.write(0, 1)
		case w.fits(x):
			o.write(1, 2)
			o.write(x>>w.low, w.length)
		default:
			w = windowOf(x)
			o.write(3|uint64(w.low)<<2|uint64(w.length-1)<<8, 14)
			o.write(x>>w.low, w.length)
		}
	}
	return o.close()
}

func (xor) decode(_ *Decoder, b []byte, dst []float64) error {
	if len(b) < 8 {
		return ErrCorrupt
	}
	prev := binary.LittleEndian.Uint64(b)
	b = b[8:]
	dst[0] = math.Float64frombits(prev)
	var w xorWindow
	bit := uint(0)
	for i := range dst[1:] {
		c := load(b, bit)
		if c&1 == 0 {
			bit++
			dst[i+1] = math.Float64frombits(prev)
			continue
		}
		used := uint(2)
		if c&2 != 0 {
			w = xorWindow{uint(c >> 2 & 63), uint(c>>8&63) + 1}
			used = 14
		}
		var x uint64
		if used+w.length <= 57 { // what a load holds at any place in its first byte
			x = c >> used & maskOf(w.length)
		} else {
			x = readBits(b, bit+used, w.length)
		}
		bit += used + w.length
		prev ^= x << w.low
		dst[i+1] = math.Float64frombits(prev)
	}
	if int(bit+7)>>3 != len(b) {
		return ErrCorrupt
	}
	return nil
}

// load returns at least 57 bits from position bit on; bits past the end are zero.
func load(b []byte, bit uint) uint64 {
	at := int(bit >> 3)
	if at+8 <= len(b) {
		return binary.LittleEndian.Uint64(b[at:]) >> (bit & 7)
	}
	return readBits(b, bit, 64)
}

// bitWriter appends bits, least significant first.
type bitWriter struct {
	dst  []byte
	acc  uint64
	used uint // bits in acc, below 64
}

// write appends the low n bits of v, which has no others; n is 1 to 64.
func (w *bitWriter) write(v uint64, n uint) {
	w.acc |= v << w.used
	w.used += n
	if w.used >= 64 {
		w.dst = binary.LittleEndian.AppendUint64(w.dst, w.acc)
		w.used -= 64
		w.acc = v >> (n - w.used) // a shift by 64 gives 0
	}
}

// close fills up the last byte with zeros and returns all bytes.
func (w *bitWriter) close() []byte {
	for n := uint(0); n < w.used; n += 8 {
		w.dst = append(w.dst, byte(w.acc>>n))
	}
	return w.dst
}
