package chunk

import "math"

// Ids of the encodings of float values. They are part of the format; never renumber,
// never reuse.
const (
	idRaw       byte = 1
	idConstant  byte = 2
	idConstInt  byte = 3
	idIntegers  byte = 4
	idDecimals  byte = 5
	idBits      byte = 6
	idXOR       byte = 7
	idCorrected byte = 8
)

const noFit = math.MaxInt

// valueEncoding is one way to write the values of a chunk. A new one joins by an id, a
// line in valueEncodingOf and, once all readers know it, a place in candidates.
// Implementations hold no state.
type valueEncoding interface {
	id() byte
	// size is how many bytes append would write, or noFit if the encoding can't hold the
	// values, or is sure to need limit bytes or more. It may keep in e what append needs.
	size(e *Encoder, vs []float64, limit int) int
	// append writes the values, without the id. size was called with them before.
	append(e *Encoder, dst []byte, vs []float64) []byte
	// decode fills dst, which is not empty, from b, which ends where the values end. It
	// fails with ErrCorrupt or ErrUnknownEncoding.
	decode(d *Decoder, b []byte, dst []float64) error
}

// valueEncodingOf returns nil for an unknown id.
func valueEncodingOf(id byte) valueEncoding {
	switch id {
	case idRaw:
		return raw{}
	case idConstant:
		return constant{}
	case idConstInt:
		return constInt{}
	case idIntegers:
		return integers{}
	case idDecimals:
		return decimals{}
	case idBits:
		return floatBits{}
	case idXOR:
		return xor{}
	case idCorrected:
		return corrected{}
	}
	return nil
}

// candidates are what the encoder weighs, in this order; of two that are equally long
// the earlier wins, which is the one that is faster to read.
func candidates() [8]valueEncoding {
	return [8]valueEncoding{constInt{}, constant{}, integers{}, decimals{}, corrected{}, floatBits{}, xor{}, raw{}}
}

// smallEnough is the number of bytes per sample at which the search ends: what comes
// later in the order is for values that are not numbers of few digits, and needs more.
const smallEnough = 4

// facts are what is gathered of the values before encodings are weighed.
type facts struct {
	equal    bool // all values have the same bits
	scalable bool // Encoder.ints holds the values times 10^exp, Encoder.misfits the rest
	exp      int
}

// appendValues appends the values in the encoding that is smallest for them.
func (e *Encoder) appendValues(dst []byte, vs []float64) []byte {
	e.facts = facts{equal: allEqual(vs)}
	if !e.facts.equal {
		e.facts.exp, e.facts.scalable = e.scale(vs)
	}
	var best valueEncoding = raw{}
	least := noFit
	for _, c := range candidates() {
		if n := c.size(e, vs, least); n < least {
			best, least = c, n
		}
		if least <= smallEnough*len(vs) {
			break
		}
	}
	return best.append(e, append(dst, best.id()), vs)
}

// decodeValues fills dst from b, which is the rest of a chunk.
func (d *Decoder) decodeValues(b []byte, dst []float64) error {
	if len(b) == 0 {
		return ErrCorrupt
	}
	c := valueEncodingOf(b[0])
	if c == nil {
		return ErrUnknownEncoding
	}
	return c.decode(d, b[1:], dst)
}

func allEqual(vs []float64) bool {
	first := math.Float64bits(vs[0])
	for _, v := range vs[1:] {
		if math.Float64bits(v) != first {
			return false
		}
	}
	return true
}
