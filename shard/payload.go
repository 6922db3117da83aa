package shard

import (
	"encoding/binary"
	"fmt"
	"math"
)

// A payload is the content of one log entry of a shard: a version byte, then
// operations one after another. Payloads are joined by appending their
// operations, so the committer merges waiting requests without looking inside.
//
//	version  op  op ...
//	op write:  'W' uvarint maxSeries, uvarint n, n series
//	series:    uvarint ref (0: labels follow as uvarint length, bytes; else number of the series),
//	           uvarint floats<<3 | blobs<<2 | exemplars<<1 | hasST
//	           floats times: varint t minus the op's previous t, value as 8 bytes little-endian, [varint: 0 for no start time, else t-st, plus one if not negative]
//	           if blobs: uvarint count, count times: varint t delta, varint st, uvarint length, bytes
//	           if exemplars: the same
//	op cut:    'C' varint t: samples before t are gone
//	op choose: 'P' varint t, uvarint length, label: of series that differ in the label only, what is
//	           not chosen of the time before t is gone; see Choice
//	op drop:   'D' uvarint n, n uvarint series numbers: idle series leave the head
const payloadVersion = 1

const (
	opWrite  = 'W'
	opCut    = 'C'
	opDrop   = 'D'
	opChoose = 'P'
)

// writeOp builds one write operation. Its buffers are reused.
type writeOp struct {
	body  []byte
	n     int
	prevT int64
	out   []byte
}

func (w *writeOp) reset() {
	w.body, w.n, w.prevT = w.body[:0], 0, 0
}

func (w *writeOp) series(no uint32, key []byte) {
	w.n++
	w.body = binary.AppendUvarint(w.body, uint64(no))
	if no == 0 {
		w.body = binary.AppendUvarint(w.body, uint64(len(key)))
		w.body = append(w.body, key...)
	}
}

func (w *writeOp) counts(floats int, blobs, exemplars, st bool) {
	c := uint64(floats) << 3
	if blobs {
		c |= 4
	}
	if exemplars {
		c |= 2
	}
	if st {
		c |= 1
	}
	w.body = binary.AppendUvarint(w.body, c)
}

func (w *writeOp) time(t int64) {
	w.body = binary.AppendVarint(w.body, t-w.prevT)
	w.prevT = t
}

func (w *writeOp) float(v float64) {
	w.body = binary.LittleEndian.AppendUint64(w.body, math.Float64bits(v))
}

func (w *writeOp) blob(t, st int64, b []byte) {
	w.time(t)
	w.body = binary.AppendVarint(w.body, st)
	w.body = binary.AppendUvarint(w.body, uint64(len(b)))
	w.body = append(w.body, b...)
}

// finish returns the operation's bytes, valid until the next reset.
func (w *writeOp) finish(maxSeries int) []byte {
	w.out = append(w.out[:0], opWrite)
	w.out = binary.AppendUvarint(w.out, uint64(maxSeries))
	w.out = binary.AppendUvarint(w.out, uint64(w.n))
	w.out = append(w.out, w.body...)
	return w.out
}

// AppendCutOp appends an operation that drops all samples before t (milliseconds).
func AppendCutOp(dst []byte, t int64) []byte {
	return binary.AppendVarint(append(dst, opCut), t)
}

// AppendDropOp appends an operation that drops idle series from the head.
func AppendDropOp(dst []byte, numbers []uint32) []byte {
	dst = binary.AppendUvarint(append(dst, opDrop), uint64(len(numbers)))
	for _, n := range numbers {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	return dst
}

// PayloadHeader starts a payload; operations are appended after it.
func PayloadHeader(dst []byte) []byte { return append(dst, payloadVersion) }

// reader walks a payload. The first malformed byte sets err, after which every
// call returns zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	if r.err == nil {
		r.err = fmt.Errorf("%w: malformed payload", ErrBadPayload)
	}
	r.b = nil
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) float() float64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(r.b))
	r.b = r.b[8:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}
