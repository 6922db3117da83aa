package chunk

import "math"

// pow10 holds the powers of ten that a float64 holds exactly. Read only.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// maxExponent is the largest decimal exponent: of the next, no float64 is exact.
const maxExponent = len(pow10) - 1

// exactInts is the bound below which a float64 holds every integer.
const exactInts = 1 << 53

// descale is the one rule by which a scaled integer becomes a float again: the nearest
// to d / 10^exp, with d first rounded to a float. The conversion keeps a compiler from
// fusing it with what follows.
func descale(d int64, p float64) float64 { return float64(float64(d) / p) }

// scaled returns the integer that may give v by descale; the caller checks.
func scaled(v, p float64) int64 {
	x := float64(v * p) // rounded here, not fused with the sum: all machines encode alike
	return int64(x + math.Copysign(0.5, x))
}

// misfitShare bounds the misfits: beyond one in so many, there is most likely a blur on
// all values, which corrected handles.
const misfitShare = 16

// longestDecimal bounds the integers that decimalOf finds at exponents above 0. With 14
// digits it has all that instruments and parsers yield; with 16, every fourth float of a
// random mantissa would pass for a decimal, and cost time before others give it the lie.
const longestDecimal = 1 << 47

// decimalOf finds the smallest exponent at which v is an integer d of up to 14 digits
// by ten to that power, so that descale gives v bit for bit. Larger integers are found
// at exponent 0.
func decimalOf(v float64) (d int64, exp int, ok bool) {
	b := math.Float64bits(v)
	if d = int64(v); math.Float64bits(float64(d)) == b {
		return d, 0, true
	}
	// One try at the largest exponent that keeps d in bounds settles it: if a smaller
	// one holds v, then this holds it too, as the same quotient with zeros appended. With
	// six bits to spare the product's rounding can't move it to another integer.
	e := (46-(int(b>>52&0x7ff)-1023))*1233>>12 + 1 // 1233/4096 is log10(2); one too many at times
	if e = min(e, maxExponent); e > 0 && math.Abs(v*pow10[e]) >= longestDecimal {
		e--
	}
	if e <= 0 {
		return 0, 0, false
	}
	d = scaled(v, pow10[e])
	if d == 0 || math.Float64bits(descale(d, pow10[e])) != b {
		return 0, 0, false
	}
	for d%10 == 0 {
		d /= 10
		e--
	}
	return d, e, true
}

// scale turns values into integers of one decimal exponent in e.ints. Values that have
// none are listed by place in e.misfits, and the integer before stands in for them. ok
// is false if there are too many of these.
func (e *Encoder) scale(vs []float64) (exp int, ok bool) {
	n := len(vs)
	exp, ok = probe(vs)
	if !ok {
		return 0, false
	}
	e.ints, e.misfits = resize(e.ints, n), e.misfits[:0]
	xs := e.ints
	for i := 0; ; {
		if exp == 0 {
			i = fitIntegers(xs, vs, i)
		} else {
			i = fitDecimals(xs, vs, i, pow10[exp])
		}
		if i == n {
			break
		}
		// A few more digits than seen so far are worth having; many are better kept apart,
		// since they would lengthen every value.
		_, need, ok := decimalOf(vs[i])
		if ok && need > exp && need <= exp+3 && rescale(xs[:i], need-exp) {
			exp = need
			continue
		}
		if len(e.misfits) > n/misfitShare {
			return 0, false
		}
		e.misfits = append(e.misfits, uint16(i))
		xs[i] = 0
		if i > 0 {
			xs[i] = xs[i-1]
		}
		i++
	}
	e.fillLeading(xs)
	return exp, len(e.misfits) < n
}

// probe looks at three values for the exponent; ok is false if none has one.
func probe(vs []float64) (exp int, ok bool) {
	for _, i := range [3]int{0, len(vs) / 2, len(vs) - 1} {
		if _, x, fits := decimalOf(vs[i]); fits {
			exp, ok = max(exp, x), true
		} else if math.IsNaN(vs[i]) || math.IsInf(vs[i], 0) || vs[i] == 0 {
			ok = true // says nothing of the others
		}
	}
	return exp, ok
}

// fitIntegers converts values from place i on until one is no integer; it returns the
// place of that, or their number.
func fitIntegers(xs []int64, vs []float64, i int) int {
	xs = xs[:len(vs)]
	for ; i < len(vs); i++ {
		d := int64(vs[i])
		if math.Float64bits(float64(d)) != math.Float64bits(vs[i]) {
			return i
		}
		xs[i] = d
	}
	return i
}

// fitDecimals is fitIntegers for values times p.
func fitDecimals(xs []int64, vs []float64, i int, p float64) int {
	xs = xs[:len(vs)]
	for ; i < len(vs); i++ {
		d := scaled(vs[i], p)
		if math.Float64bits(descale(d, p)) != math.Float64bits(vs[i]) {
			return i
		}
		xs[i] = d
	}
	return i
}

// rescale appends zeros to all integers. It refuses if one would then not be exact as a
// float: only while both forms are, they are the same quotient.
func rescale(xs []int64, zeros int) bool {
	m := int64(pow10[zeros])
	for _, x := range xs {
		if x > exactInts/m || x < -exactInts/m {
			return false
		}
	}
	for i := range xs {
		xs[i] *= m
	}
	return true
}

// fillLeading gives misfits at the start the integer after them.
func (e *Encoder) fillLeading(xs []int64) {
	lead := 0
	for lead < len(e.misfits) && int(e.misfits[lead]) == lead {
		lead++
	}
	if lead < len(xs) {
		for i := range lead {
			xs[i] = xs[lead]
		}
	}
}
