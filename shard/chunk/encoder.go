package chunk

import "encoding/binary"

// hasStarts marks, in the mode byte of the timestamps, that start timestamps follow.
const hasStarts byte = 0x80

// idBlobsPlain is the encoding of blobs: a column of lengths, then the bytes.
const idBlobsPlain byte = 1

// Encoder compresses columns into chunks. It is reusable scratch memory for one
// goroutine at a time; the zero value is ready for use.
type Encoder struct {
	// Base is taken off the timestamps, in milliseconds. It may stay 0; a container that
	// knows a time near a chunk's first saves up to 5 bytes a chunk by it, and must give
	// the Decoder the same. It is not part of the chunk.
	Base int64

	facts   facts
	plans   [3][2]intPlan // two rivals in each slot
	plan    [3]*intPlan   // the winner of each slot
	ints    []int64       // values scaled to integers; lengths of blobs
	bits    []int64       // bit patterns of values
	steps   []int64       // distances of values from ints
	misfits []uint16      // places of values that ints can't hold
	pos     []uint16
	tmp     []uint64
}

// Floats appends a chunk of float samples to dst. ts are milliseconds, strictly
// increasing, 1 to MaxSamples of them; vs is as long as ts; st is empty or as long as
// ts (0: none). Other lengths are a fault of the program, and it panics.
func (e *Encoder) Floats(dst []byte, ts []int64, vs []float64, st []int64) []byte {
	checkLengths(len(ts), len(vs), len(st))
	at := len(dst)
	dst = e.appendTimes(dst, ts, st)
	dst = e.appendValues(dst, vs)
	if invariants {
		e.verifyFloats(dst[at:], ts, vs, st)
	}
	return dst
}

// Blobs appends a chunk of opaque samples to dst. The rules for ts and st are those
// of Floats; blobs is as long as ts.
func (e *Encoder) Blobs(dst []byte, ts []int64, st []int64, blobs [][]byte) []byte {
	checkLengths(len(ts), len(blobs), len(st))
	at := len(dst)
	dst = e.appendTimes(dst, ts, st)
	e.ints = resize(e.ints, len(blobs))
	for i, b := range blobs {
		e.ints[i] = int64(len(b))
	}
	dst = e.appendInts(append(dst, idBlobsPlain), e.planInts(e.ints, plainColumn, 0), 0)
	for _, b := range blobs {
		dst = append(dst, b...)
	}
	if invariants {
		e.verifyBlobs(dst[at:], ts, st, blobs)
	}
	return dst
}

func (e *Encoder) appendTimes(dst []byte, ts, st []int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ts)))
	p := e.planInts(ts, timeColumn, 0)
	p.head.first -= e.Base
	if len(st) == 0 {
		return e.appendInts(dst, p, 0)
	}
	dst = e.appendInts(dst, p, hasStarts)
	return e.appendInts(dst, e.planInts(st, plainColumn, 0), 0)
}

func checkLengths(ts, vs, st int) {
	if ts == 0 || ts > MaxSamples || vs != ts || (st != 0 && st != ts) {
		panic("chunk: columns are empty, too long or of different length")
	}
}
