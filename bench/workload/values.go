package workload

import "math"

// rng is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): one word
// of state a series, and independent streams from consecutive seeds.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// unit returns a number in [0, 1).
func (r *rng) unit() float64 { return float64(r.next()>>11) / (1 << 53) }

// kind says how the values of a series move.
type kind uint8

const (
	kindConstant  kind = iota // build info, capacities, limits
	kindCount                 // whole numbers that rise by a varied rate, often not at all
	kindSeconds               // counters with two decimals, such as CPU time
	kindGauge                 // decimals that wander, such as a load or a temperature
	kindBytes                 // multiples of a page that wander, such as memory
	kindHistogram             // cumulative bucket counts of one histogram
)

// series is the state of one synthetic series.
type series struct {
	labels []byte // encoded label fields of a TimeSeries message
	kind   kind
	value  float64
	rate   float64 // mean step for counters, width of the walk for gauges
	share  float64 // part of all observations at or below a bucket's bound
	rnd    rng
}

// start puts the series at a plausible first value.
func (s *series) start() {
	u := s.rnd.unit()
	switch s.kind {
	case kindConstant:
		s.value = math.Floor(u * 64)
	case kindCount:
		s.rate = math.Exp(u*11 - 3) // 0.05 to 3000 a step
		s.value = math.Floor(s.rate * s.rnd.unit() * 100_000)
	case kindSeconds:
		s.rate = u * u * 10
		s.value = round(s.rate*s.rnd.unit()*100_000, 100)
	case kindGauge:
		s.rate = 0.05 + u*2
		s.value = round(u*100, 1000)
	case kindBytes:
		s.rate = math.Floor(u * 256)
		s.value = 4096 * math.Floor(u*4e6)
	case kindHistogram:
		// The observations of all buckets of one histogram share rnd, so the counts stay cumulative.
		s.rate = 1 + u*50
		s.value = math.Floor(s.rate * 5000)
	}
}

// step moves the series on by one scrape and returns the value to write.
func (s *series) step() float64 {
	switch s.kind {
	case kindCount:
		s.value += math.Floor(s.rate * 2 * s.rnd.unit())
	case kindSeconds:
		s.value = round(s.value+s.rate*(0.5+s.rnd.unit()), 100)
	case kindGauge:
		s.value = round(math.Abs(s.value+s.rate*(s.rnd.unit()-0.5)), 1000)
	case kindBytes:
		if s.rnd.unit() < 0.7 {
			s.value = math.Max(0, s.value+4096*math.Floor(s.rate*(s.rnd.unit()-0.5)))
		}
	case kindHistogram:
		s.value += math.Floor(s.rate * 2 * s.rnd.unit())
		return math.Floor(s.value * s.share)
	case kindConstant:
	}
	return s.value
}

func round(v, scale float64) float64 { return math.Round(v*scale) / scale }
