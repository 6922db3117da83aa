package chunk

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// column is a column of values as some kind of metric yields it.
type column struct {
	name   string
	wants  string // how the name of the encoding that should be chosen begins
	values func(r *rand.Rand, n int) []float64
}

const staleBits = 0x7ff0000000000002

func stale() float64 { return math.Float64frombits(staleBits) }

// each makes n values by f.
func each(f func(r *rand.Rand, i int, prev float64) float64) func(*rand.Rand, int) []float64 {
	return func(r *rand.Rand, n int) []float64 {
		vs := make([]float64, n)
		prev := 0.0
		for i := range vs {
			vs[i] = f(r, i, prev)
			prev = vs[i]
		}
		return vs
	}
}

// round rounds to digits decimals, to the nearest float as a parser does.
func round(v float64, digits int) float64 {
	p := math.Pow(10, float64(digits))
	return math.Round(v*p) / p
}

// columns are the shapes that tests and benchmarks share.
func columns() []column {
	return append(ordinaryColumns(), adversarialColumns()...)
}

func ordinaryColumns() []column {
	return []column{
		{"constant integer", "constant-integer", each(func(*rand.Rand, int, float64) float64 { return 17179869184 })},
		{"constant float", "constant", each(func(*rand.Rand, int, float64) float64 { return math.Pi })},
		{"steady counter", "integers", each(func(_ *rand.Rand, i int, _ float64) float64 { return float64(1000 + 15*i) })},
		{"counter", "integers", each(func(r *rand.Rand, _ int, p float64) float64 { return p + float64(r.IntN(200)) })},
		{"bursty counter", "integers", each(func(r *rand.Rand, i int, p float64) float64 {
			if r.IntN(12) == 0 {
				return p + float64(r.IntN(100000))
			}
			return p + float64(r.IntN(3))
		})},
		{"counter with resets", "integers", each(func(r *rand.Rand, i int, p float64) float64 {
			if r.IntN(100) == 99 {
				return 0
			}
			return p + float64(r.IntN(1000))
		})},
		{"gauge of bytes", "integers", each(func(r *rand.Rand, _ int, _ float64) float64 {
			return 4096 * float64(2000000+r.IntN(5000))
		})},
		{"seconds of CPU", "decimals", each(func(r *rand.Rand, _ int, p float64) float64 { return round(p+r.Float64(), 2) })},
		{"temperature", "decimals", each(func(r *rand.Rand, _ int, _ float64) float64 { return round(20+5*r.NormFloat64(), 1) })},
		{"counter gone stale", "", each(func(r *rand.Rand, i int, p float64) float64 {
			if i%37 == 36 {
				return stale()
			}
			return float64(10 * i)
		})},
		{"random walk of floats", "", each(func(r *rand.Rand, _ int, p float64) float64 { return p + r.NormFloat64() })},
		{"sum of floats", "", each(func(r *rand.Rand, _ int, p float64) float64 { return p + r.ExpFloat64()*0.003 })},
		{"blurred sum of seconds", "corrected", each(func(r *rand.Rand, _ int, p float64) float64 {
			for range r.IntN(4) {
				p += float64(r.IntN(50000000)) / 1e9
			}
			return p
		})},
		{"blurred milliseconds", "", each(func(r *rand.Rand, i int, p float64) float64 { return float64(1000+i*7+r.IntN(5)) * 0.001 })},
		{"noise", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return r.NormFloat64() })},
		{"float32", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return float64(float32(r.NormFloat64())) })},
		{"rarely changing float", "", each(func(r *rand.Rand, i int, p float64) float64 {
			if i == 0 || r.IntN(30) == 0 {
				return r.Float64()
			}
			return p
		})},
		{"powers of a half", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return math.Exp2(-float64(r.IntN(400))) })},
	}
}

func adversarialColumns() []column {
	specials := []float64{
		0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), stale(),
		math.Float64frombits(0x7ff8000000000001), math.Float64frombits(0xfff8dead00000000),
		math.Float64frombits(0x7ff0000000000001), math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64,
		math.MaxFloat64, -math.MaxFloat64, 0x1p-1022, 1, -1, 0.1, 1 << 53, 1<<53 + 2, 1 << 62, 1 << 63, -1 << 63, 1e22, 1e23, 1e300,
	}
	pick := func(r *rand.Rand) float64 { return specials[r.IntN(len(specials))] }
	out := []column{
		{"specials", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return pick(r) })},
		{"random bits", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return math.Float64frombits(r.Uint64()) })},
		{"counter with specials", "", each(func(r *rand.Rand, i int, _ float64) float64 {
			if r.IntN(20) == 0 {
				return pick(r)
			}
			return float64(i)
		})},
		{"decimals with specials", "", each(func(r *rand.Rand, i int, _ float64) float64 {
			if r.IntN(20) == 0 {
				return pick(r)
			}
			return float64(r.IntN(100000)) / 1000
		})},
		{"huge integers", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return float64(int64(r.Uint64())) })},
		{"about 2^53", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return float64(int64(1<<53) + int64(r.IntN(100)) - 50) })},
		{"ends of int64", "", each(func(r *rand.Rand, i int, _ float64) float64 { return []float64{-1 << 63, 1<<63 - 1024}[i&1] })},
		{"negative zero", "", each(func(_ *rand.Rand, i int, _ float64) float64 { return math.Copysign(0, float64(i%2)-0.5) })},
		{"denormals", "", each(func(r *rand.Rand, _ int, _ float64) float64 { return math.Float64frombits(r.Uint64N(1 << 20)) })},
		{"leading stale", "", each(func(_ *rand.Rand, i int, _ float64) float64 {
			if i < 3 {
				return stale()
			}
			return float64(i) / 10
		})},
	}
	for digits := 1; digits <= 17; digits++ {
		out = append(out, column{fmt.Sprintf("decimals of %d places", digits), "", each(func(r *rand.Rand, _ int, _ float64) float64 {
			return round(r.Float64()*100, digits)
		})})
		out = append(out, column{fmt.Sprintf("up to %d places", digits), "", each(func(r *rand.Rand, _ int, _ float64) float64 {
			return round(r.Float64()*10, r.IntN(digits+1))
		})})
	}
	return out
}

// times makes n strictly increasing timestamps in one of several manners.
func times(r *rand.Rand, manner, n int) []int64 {
	ts := make([]int64, n)
	at := int64(1790000000123)
	for i := range ts {
		ts[i] = at
		switch manner {
		case 0: // a schedule kept exactly
			at += 15000
		case 1: // with jitter about it
			ts[i] += r.Int64N(21) - 10
			at += 15000
		case 2: // with scrapes missed
			at += 15000 * (1 + r.Int64N(8)/7)
		case 3: // whenever something happened
			at += 1 + r.Int64N(100000)
		default: // from one end of time to the other
			if i == 0 {
				at, ts[i] = math.MinInt64, math.MinInt64
			}
			at += 1 + r.Int64N(math.MaxInt64/int64(n))*2
		}
	}
	return ts
}

const manners = 5
