package chunk

import (
	"encoding/binary"
	"math"
)

// StatsOf computes the statistics of the values of one chunk.
func StatsOf(vs []float64) Stats {
	s := Stats{Count: len(vs)}
	if len(vs) == 0 {
		return s
	}
	s.First, s.Last = vs[0], vs[len(vs)-1]
	prev := math.Inf(-1)
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range vs {
		if v != v {
			s.NaNs++
			continue
		}
		if v < prev {
			s.Resets++
		}
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
		prev = v
		s.Sum += v
	}
	if s.NaNs < s.Count {
		s.Min, s.Max = lo, hi
		// Loops that start from infinities miss a chunk of nothing but one of them.
		if lo > hi {
			s.Min, s.Max = prev, prev
		}
	}
	return s
}

// AppendStats appends the encoded form of s: see FORMAT.md.
func AppendStats(dst []byte, s Stats) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.Count))
	dst = binary.AppendUvarint(dst, uint64(s.NaNs))
	dst = binary.AppendUvarint(dst, uint64(s.Resets))
	for _, v := range [...]float64{s.Sum, s.Min, s.Max, s.First, s.Last} {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	return dst
}

// ReadStats splits statistics off b and returns what follows them. It fails with
// ErrCorrupt.
func ReadStats(b []byte) (Stats, []byte, error) {
	var n [3]uint64
	for i := range n {
		var ok bool
		if n[i], b, ok = readUvarint(b); !ok {
			return Stats{}, nil, ErrCorrupt
		}
	}
	if n[0] > MaxSamples || n[1] > n[0] || n[2] > n[0] || len(b) < 40 {
		return Stats{}, nil, ErrCorrupt
	}
	var f [5]float64
	for i := range f {
		f[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return Stats{
		Count: int(n[0]), NaNs: int(n[1]), Resets: int(n[2]),
		Sum: f[0], Min: f[1], Max: f[2], First: f[3], Last: f[4],
	}, b[40:], nil
}
