package chunk

import (
	"encoding/binary"
	"math"
)

// StatsOf computes the statistics of the values of one chunk. The sum is compensated (A.
// Neumaier, 1974), as PromQL's sum_over_time is, so that sums of chunks add up to what
// summing the samples gives.
func StatsOf(vs []float64) Stats {
	s := Stats{Count: len(vs)}
	if len(vs) == 0 {
		return s
	}
	s.First, s.Last = vs[0], vs[len(vs)-1]
	at := 0
	for at < len(vs) && vs[at] != vs[at] {
		at++
	}
	s.NaNs = at
	if at == len(vs) {
		return s
	}
	prev := vs[at]
	lo, hi, sum, lost := prev, prev, prev, 0.0
	for _, v := range vs[at+1:] {
		if v != v {
			s.NaNs++
			continue
		}
		if v < prev {
			s.Resets++
		}
		prev = v
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
		t := sum + v
		if math.Abs(sum) >= math.Abs(v) {
			lost += (sum - t) + v
		} else {
			lost += (v - t) + sum
		}
		sum = t
	}
	if !math.IsInf(sum, 0) { // what is lost beside an infinity is not a number
		sum += lost
	}
	s.Sum, s.Min, s.Max = sum, lo, hi
	return s
}

// Forms of a number in encoded statistics. The first three serve all, in this order.
const (
	formFloat   = 0 // 8 bytes
	formInteger = 1 // zigzag varint
	formDecimal = 2 // exponent, zigzag varint: as in the encoding of values
	formFirst   = 3 // for Last, Min, Max: the same as First. For Sum: Count times First
	formLast    = 4 // for Min, Max: the same as Last
)

// statsFlags is the layout of the two bytes in front: where the form of each number
// begins, and which counts are there.
const (
	firstForm  = 0  // 2 bits
	lastForm   = 2  // 2 bits
	minForm    = 4  // 3 bits
	maxForm    = 7  // 3 bits
	sumForm    = 10 // 2 bits
	someNaNs   = 1 << 12
	someResets = 1 << 13
	allFlags   = 1<<14 - 1
)

// AppendStats appends the encoded form of s: 4 bytes if little happened, 48 at most.
// s is of one chunk: Count is at most MaxSamples.
func AppendStats(dst []byte, s Stats) []byte {
	at := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.AppendUvarint(dst, uint64(s.Count))
	var flags uint16
	if s.NaNs > 0 {
		flags |= someNaNs
		dst = binary.AppendUvarint(dst, uint64(s.NaNs))
	}
	if s.Resets > 0 {
		flags |= someResets
		dst = binary.AppendUvarint(dst, uint64(s.Resets))
	}
	put := func(v float64, shift int, same ...float64) {
		form := uint16(0)
		for i, w := range same {
			if math.Float64bits(v) == math.Float64bits(w) {
				flags |= uint16(formFirst+i) << shift
				return
			}
		}
		dst, form = appendNumber(dst, v)
		flags |= form << shift
	}
	put(s.First, firstForm)
	put(s.Last, lastForm, s.First)
	put(s.Min, minForm, s.First, s.Last)
	put(s.Max, maxForm, s.First, s.Last)
	put(s.Sum, sumForm, float64(s.Count)*s.First)
	binary.LittleEndian.PutUint16(dst[at:], flags)
	return dst
}

func appendNumber(dst []byte, v float64) ([]byte, uint16) {
	d, exp, ok := decimalOf(v)
	switch n := uvarintLen(zigzag(d)); {
	case ok && exp == 0 && n < 8:
		return appendZigzag(dst, d), formInteger
	case ok && exp > 0 && n < 7:
		return appendZigzag(append(dst, byte(exp)), d), formDecimal
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v)), formFloat
}

// ReadStats splits statistics off b and returns what follows them. It fails with
// ErrCorrupt.
func ReadStats(b []byte) (Stats, []byte, error) {
	if len(b) < 2 {
		return Stats{}, nil, ErrCorrupt
	}
	flags := binary.LittleEndian.Uint16(b)
	if flags > allFlags {
		return Stats{}, nil, ErrCorrupt
	}
	r := statsReader{b: b[2:], flags: flags, ok: true}
	var s Stats
	s.Count = r.count(MaxSamples)
	if flags&someNaNs != 0 {
		s.NaNs = r.count(s.Count)
	}
	if flags&someResets != 0 {
		s.Resets = r.count(s.Count)
	}
	s.First = r.number(firstForm, 3, 0, 0)
	s.Last = r.number(lastForm, 3, s.First, 0)
	s.Min = r.number(minForm, 7, s.First, s.Last)
	s.Max = r.number(maxForm, 7, s.First, s.Last)
	s.Sum = r.number(sumForm, 3, float64(s.Count)*s.First, 0)
	if !r.ok {
		return Stats{}, nil, ErrCorrupt
	}
	return s, r.b, nil
}

// statsReader reads numbers until one fails; then ok is false.
type statsReader struct {
	b     []byte
	flags uint16
	ok    bool
}

func (r *statsReader) count(limit int) int {
	u, rest, ok := readUvarint(r.b)
	if !ok || u > uint64(limit) {
		r.ok = false
		return 0
	}
	r.b = rest
	return int(u)
}

func (r *statsReader) number(shift int, mask uint16, first, last float64) float64 {
	form := r.flags >> shift & mask
	if form == formFirst && shift != firstForm {
		return first
	}
	if form == formLast {
		return last
	}
	if form == formFloat {
		if len(r.b) < 8 {
			r.ok = false
			return 0
		}
		v := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
		r.b = r.b[8:]
		return v
	}
	p := pow10[0]
	if form == formDecimal && len(r.b) > 0 && int(r.b[0]) <= maxExponent {
		p, r.b = pow10[r.b[0]], r.b[1:]
	} else if form != formInteger {
		r.ok = false
		return 0
	}
	x, rest, ok := readZigzag(r.b)
	if !ok {
		r.ok = false
		return 0
	}
	r.b = rest
	return descale(x, p)
}
