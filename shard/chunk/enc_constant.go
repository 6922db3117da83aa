package chunk

import (
	"encoding/binary"
	"math"
)

// constant: the one value of all samples, as 8 bytes.
type constant struct{}

func (constant) id() byte { return idConstant }

func (constant) size(e *Encoder, _ []float64, _ int) int {
	if !e.facts.equal {
		return noFit
	}
	return 8
}

func (constant) append(_ *Encoder, dst []byte, vs []float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(vs[0]))
}

func (constant) decode(_ *Decoder, b []byte, dst []float64) error {
	if len(b) != 8 {
		return ErrCorrupt
	}
	fill(dst, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	return nil
}

// constInt: the one value of all samples, an integer, as a zigzag varint.
type constInt struct{}

func (constInt) id() byte { return idConstInt }

func (constInt) size(e *Encoder, vs []float64, _ int) int {
	x := int64(vs[0])
	if !e.facts.equal || math.Float64bits(float64(x)) != math.Float64bits(vs[0]) {
		return noFit
	}
	return uvarintLen(zigzag(x))
}

func (constInt) append(_ *Encoder, dst []byte, vs []float64) []byte {
	return appendZigzag(dst, int64(vs[0]))
}

func (constInt) decode(_ *Decoder, b []byte, dst []float64) error {
	x, b, ok := readZigzag(b)
	if !ok || len(b) != 0 {
		return ErrCorrupt
	}
	fill(dst, float64(x))
	return nil
}

func fill(dst []float64, v float64) {
	for i := range dst {
		dst[i] = v
	}
}
