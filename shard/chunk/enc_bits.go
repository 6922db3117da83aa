package chunk

import "math"

// floatBits: the bit patterns as a column of integers, for measurements with all their
// digits. Neighbours of like size differ in their last bits only, however they are
// signed, and floats that came from 32 bits share the zeros at the end.
type floatBits struct{}

func (floatBits) id() byte { return idBits }

func (floatBits) size(e *Encoder, vs []float64, _ int) int {
	e.bits = resize(e.bits, len(vs))
	for i, v := range vs {
		e.bits[i] = orderedOf(v)
	}
	e.plan[2] = e.planInts(e.bits, plainColumn, 2)
	return e.plan[2].size
}

func (floatBits) append(e *Encoder, dst []byte, _ []float64) []byte {
	return e.appendInts(dst, e.plan[2], 0)
}

func (floatBits) decode(d *Decoder, b []byte, dst []float64) error {
	xs, err := d.column(b, len(dst))
	if err != nil {
		return err
	}
	xs = xs[:len(dst)]
	for i, x := range xs {
		dst[i] = math.Float64frombits(uint64(orderedBits(x)))
	}
	return nil
}

// orderedBits turns the bits of a float into an integer that sorts as the float does,
// and back.
func orderedBits(b int64) int64 { return b ^ b>>63&math.MaxInt64 }
