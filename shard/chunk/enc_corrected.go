package chunk

import "math"

// corrected: decimals that arithmetic has blurred, as the nearest decimal and the
// distance to it in steps of the last bit. Sums of durations are such (0.1 + 0.2 is one step
// above 0.3), and so is what exporters turn from milliseconds into seconds by a
// multiplication. Steps are few where the bits of the value would be many.
type corrected struct{}

func (corrected) id() byte { return idCorrected }

func (corrected) size(e *Encoder, vs []float64, _ int) int {
	if e.facts.equal || e.facts.scalable {
		return noFit
	}
	exp, ok := blurredExponent(vs)
	if !ok {
		return noFit
	}
	e.facts.exp = exp
	p := pow10[exp]
	e.ints, e.steps = resize(e.ints, len(vs)), resize(e.steps, len(vs))
	x := int64(0)
	for i, v := range vs {
		// What is no number of use stays at the decimal before; its steps make it good.
		if math.Abs(v) < exactInts/p {
			x = scaled(v, p)
		}
		e.ints[i] = x
		e.steps[i] = orderedOf(v) - orderedOf(descale(x, p))
	}
	e.plan[0] = e.planInts(e.ints, plainColumn, 0)
	e.plan[1] = e.planInts(e.steps, plainColumn, 1)
	return 1 + e.plan[0].size + e.plan[1].size
}

// blurredExponent finds the smallest exponent at which a few values are close to
// integers.
func blurredExponent(vs []float64) (exp int, ok bool) {
	var some [4]float64
	k := 0
	for i := len(vs) - 1; i >= 0 && k < len(some); i -= max(len(vs)/len(some), 1) {
		if v := math.Abs(vs[i]); v > 0 && v < exactInts {
			some[k], k = v, k+1
		}
	}
	// Of random values one in 16 would be as close, so two are asked for at least. Past
	// the bound, products are too coarse to tell.
	const close, bound = 1.0 / 32, 1 << 46
	for exp = range pow10[:blurredExponents] {
		for i := 0; ; i++ {
			if i == k {
				return exp, k >= 2
			}
			x := float64(some[i] * pow10[exp])
			if x >= bound {
				return 0, false
			}
			if n := math.Floor(x + 0.5); n == 0 || math.Abs(x-n) > close {
				break
			}
		}
	}
	return 0, false
}

// blurredExponents is how many exponents are tried: up to that of picoseconds.
const blurredExponents = 13

func (corrected) append(e *Encoder, dst []byte, _ []float64) []byte {
	dst = e.appendInts(append(dst, byte(e.facts.exp)), e.plan[0], 0)
	return e.appendInts(dst, e.plan[1], 0)
}

func (corrected) decode(d *Decoder, b []byte, dst []float64) error {
	if len(b) < 2 || int(b[0]) > maxExponent || b[1]&hasStarts != 0 {
		return ErrCorrupt
	}
	p := pow10[b[0]]
	d.x = resize(d.x, len(dst))
	b, err := d.ints(b[1], b[2:], d.x, 0)
	if err != nil {
		return err
	}
	// The decimals wait in dst while the scratch serves the steps.
	for i, x := range d.x {
		dst[i] = descale(x, p)
	}
	steps, err := d.column(b, len(dst))
	if err != nil {
		return err
	}
	steps = steps[:len(dst)]
	for i, s := range steps {
		dst[i] = math.Float64frombits(uint64(orderedBits(orderedOf(dst[i]) + s)))
	}
	return nil
}

func orderedOf(v float64) int64 { return orderedBits(int64(math.Float64bits(v))) }
