package chunk

import (
	"encoding/binary"
	"math"
)

// integers: all values are integers, and are written as a column of them.
type integers struct{}

func (integers) id() byte { return idIntegers }

func (integers) size(e *Encoder, _ []float64, _ int) int {
	if !e.facts.scalable || e.facts.exp != 0 || len(e.misfits) > 0 {
		return noFit
	}
	e.plan[0] = e.planInts(e.ints, plainColumn, 0)
	return e.plan[0].size
}

func (integers) append(e *Encoder, dst []byte, _ []float64) []byte {
	return e.appendInts(dst, e.plan[0], 0)
}

func (integers) decode(d *Decoder, b []byte, dst []float64) error {
	xs, err := d.column(b, len(dst))
	if err != nil {
		return err
	}
	xs = xs[:len(dst)]
	for i, x := range xs {
		dst[i] = float64(x)
	}
	return nil
}

// decimals: values are integers by a power of ten, but for a few misfits (stale
// markers, NaNs, infinities, values of more digits), which are listed apart.
type decimals struct{}

func (decimals) id() byte { return idDecimals }

// hasMisfits marks, in the byte of the exponent, that misfits follow.
const hasMisfits = 0x80

func (decimals) size(e *Encoder, vs []float64, limit int) int {
	if !e.facts.scalable || (e.facts.exp == 0 && len(e.misfits) == 0) {
		return noFit
	}
	n := 1
	if k := len(e.misfits); k > 0 {
		n += uvarintLen(uint64(k)) + positionsLen(len(vs), k) + 8*k
	}
	e.plan[0] = e.planInts(e.ints, plainColumn, 0)
	return n + e.plan[0].size
}

func (decimals) append(e *Encoder, dst []byte, vs []float64) []byte {
	k := len(e.misfits)
	if k == 0 {
		return e.appendInts(append(dst, byte(e.facts.exp)), e.plan[0], 0)
	}
	dst = append(dst, byte(e.facts.exp)|hasMisfits)
	dst = binary.AppendUvarint(dst, uint64(k))
	e.tmp = resize(e.tmp, k)
	dst = appendPositions(dst, e.misfits, len(vs), e.tmp)
	for _, i := range e.misfits {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(vs[i]))
	}
	return e.appendInts(dst, e.plan[0], 0)
}

func (decimals) decode(d *Decoder, b []byte, dst []float64) error {
	if len(b) == 0 || int(b[0]&^hasMisfits) > maxExponent {
		return ErrCorrupt
	}
	exp, some := b[0]&^hasMisfits, b[0]&hasMisfits != 0
	b = b[1:]
	var misfits []byte
	if some {
		k, rest, ok := readUvarint(b)
		if !ok || k == 0 || k > uint64(len(dst)) {
			return ErrCorrupt
		}
		d.misfits, d.tmp = resize(d.misfits, int(k)), resize(d.tmp, int(k))
		b, ok = readPositions(rest, d.misfits, len(dst), d.tmp)
		if !ok || len(b) < 8*int(k) {
			return ErrCorrupt
		}
		misfits, b = b[:8*k], b[8*k:]
	}
	xs, err := d.column(b, len(dst))
	if err != nil {
		return err
	}
	p := pow10[exp]
	xs = xs[:len(dst)]
	for i, x := range xs {
		dst[i] = descale(x, p)
	}
	for i := 0; i < len(misfits); i += 8 {
		dst[d.misfits[i/8]] = math.Float64frombits(binary.LittleEndian.Uint64(misfits[i:]))
	}
	return nil
}

// column decodes a column of n int64s that fills b into scratch.
func (d *Decoder) column(b []byte, n int) ([]int64, error) {
	if len(b) == 0 || b[0]&hasStarts != 0 {
		return nil, ErrCorrupt
	}
	d.x = resize(d.x, n)
	rest, err := d.ints(b[0], b[1:], d.x, 0)
	if err == nil && len(rest) != 0 {
		err = ErrCorrupt
	}
	return d.x, err
}
