package chunk

import (
	"encoding/binary"
	"math"
)

// raw: 8 bytes a value. The fallback that bounds the size of every chunk.
type raw struct{}

func (raw) id() byte                                 { return idRaw }
func (raw) size(_ *Encoder, vs []float64, _ int) int { return 8 * len(vs) }

func (raw) append(_ *Encoder, dst []byte, vs []float64) []byte {
	for _, v := range vs {
		dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
	}
	return dst
}

func (raw) decode(_ *Decoder, b []byte, dst []float64) error {
	if len(b) != 8*len(dst) {
		return ErrCorrupt
	}
	for i := range dst {
		dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return nil
}
