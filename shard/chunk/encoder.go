package chunk

import (
	"encoding/binary"
	"math"
)

// hasStarts marks, in the id byte of the timestamps, that start timestamps follow.
const hasStarts = 0x80

// Encoder compresses columns into chunks. It is reusable scratch memory for one
// goroutine at a time; the zero value is ready for use.
type Encoder struct {
	u [MaxSamples]uint64
	x [MaxSamples]int64
}

// Floats appends a chunk of float samples to dst. ts are milliseconds, strictly
// increasing, 1 to MaxSamples of them; vs is as long as ts; st is empty or as long as
// ts (0: none). Other lengths are a fault of the program, and it panics.
func (e *Encoder) Floats(dst []byte, ts []int64, vs []float64, st []int64) []byte {
	checkLengths(len(ts), len(vs), len(st))
	dst = e.appendTimes(dst, ts, st)
	dst = append(dst, 1)
	for _, v := range vs {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	return dst
}

// Blobs appends a chunk of opaque samples to dst. The rules for ts and st are those
// of Floats; blobs is as long as ts.
func (e *Encoder) Blobs(dst []byte, ts []int64, st []int64, blobs [][]byte) []byte {
	checkLengths(len(ts), len(blobs), len(st))
	dst = e.appendTimes(dst, ts, st)
	dst = append(dst, 1)
	for i, b := range blobs {
		e.x[i] = int64(len(b))
	}
	dst = appendInts(dst, e.x[:len(ts)], e.u[:0])
	for _, b := range blobs {
		dst = append(dst, b...)
	}
	return dst
}

func (e *Encoder) appendTimes(dst []byte, ts, st []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ts)))
	if len(st) == 0 {
		dst = append(dst, intsDelta)
		return appendInts(dst, ts, e.u[:0])
	}
	dst = append(dst, intsDelta|hasStarts)
	dst = appendInts(dst, ts, e.u[:0])
	dst = append(dst, intsDelta)
	return appendInts(dst, st, e.u[:0])
}

func checkLengths(ts, vs, st int) {
	if ts == 0 || ts > MaxSamples || vs != ts || (st != 0 && st != ts) {
		panic("chunk: columns are empty, too long or of different length")
	}
}
