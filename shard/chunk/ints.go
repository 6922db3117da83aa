package chunk

import "math/bits"

// A column of int64s (timestamps, start timestamps, scaled values, bit patterns of
// floats, lengths of blobs) is a mode byte, its head, and residuals in layers.
const (
	hasShift byte = 0x40 // in the mode byte: a shift follows first
	idMask   byte = 0x3f // the transform's id
)

// columnKind steers which transforms are weighed.
type columnKind uint8

const (
	plainColumn columnKind = iota
	timeColumn             // timestamps of samples
)

// intPlan says how a column will be written and in how many bytes.
type intPlan struct {
	t      transform
	head   intHead
	layers layerPlan
	u      []uint64 // residuals
	size   int
}

// intProfile is what one pass over a column tells.
type intProfile struct {
	least     int64  // the smallest value
	leastRise uint64 // the smallest difference that is not negative, else a huge one
	falls     int    // differences below zero
	rises     int    // differences above zero
	shift     uint   // low bits that all differences have zero
}

func profileOf(xs []int64) intProfile {
	least, leastRise := xs[0], ^uint64(0)
	falls, rises := 0, 0
	prev, or := xs[0], uint64(0)
	for _, x := range xs[1:] {
		d := x - prev
		prev = x
		or |= uint64(d)
		falls += int(uint64(d) >> 63)
		rises += int(uint64(-d) >> 63)
		leastRise = min(leastRise, uint64(d))
		least = min(least, x)
	}
	return intProfile{least, leastRise, falls, rises, uint(bits.TrailingZeros64(or)) & 63}
}

// isLinear reports whether all differences are equal.
func isLinear(xs []int64) bool {
	if len(xs) < 3 {
		return true
	}
	prev, d := xs[1], xs[1]-xs[0]
	for _, x := range xs[2:] {
		if x-prev != d {
			return false
		}
		prev = x
	}
	return true
}

// planInts chooses the transform of a column. The plan and its residuals lie in the
// scratch of slot until the next call with that slot.
func (e *Encoder) planInts(xs []int64, kind columnKind, slot int) *intPlan {
	one, two := &e.plans[slot][0], &e.plans[slot][1]
	if isLinear(xs) {
		one.straight(xs)
		return one
	}
	pr := profileOf(xs)
	one.t, two.t = pickTransforms(&pr, len(xs), kind)
	one.prepare(xs, &pr)
	two.prepare(xs, &pr)
	// Bits are a good guess at the size. Only rivals that are close are divided both,
	// and in a short column neither could gain much.
	gap := two.layers.bits - one.layers.bits
	if gap < 0 {
		one, two, gap = two, one, -gap
	}
	one.divide(noFit)
	if len(xs) >= shortColumn && gap < len(xs)*closeRace/8 {
		if two.divide(one.size); two.size < one.size {
			return two
		}
	}
	return one
}

// straight plans a column whose differences are all equal.
func (p *intPlan) straight(xs []int64) {
	p.t, p.u = linear{}, p.u[:0]
	p.head = intHead{first: xs[0]}
	if len(xs) > 1 {
		p.head.base = xs[1] - xs[0]
	}
	if q := p.head.base / scheduleUnit; q != 0 && q*scheduleUnit == p.head.base {
		p.t, p.head.base = schedule{}, q
	}
	p.size = p.headLen()
}

const (
	shortColumn = 64 // samples
	closeRace   = 8  // eighths of a bit per sample
)

// pickTransforms names the two that are worth weighing, by how often values fall.
func pickTransforms(pr *intProfile, n int, kind columnKind) (transform, transform) {
	// A fall costs a delta all 64 bits, where zigzag costs every other value one.
	rarelyFalls := pr.rises >= 32*pr.falls
	switch {
	case kind == timeColumn && pr.falls == 0:
		return delta{}, line{}
	case pr.falls > n/8:
		return deltaZig{}, frame{}
	case rarelyFalls:
		return delta{}, deltaOfDelta{}
	}
	return deltaZig{}, deltaOfDelta{}
}

// prepare computes head and residuals for the plan's transform.
func (p *intPlan) prepare(xs []int64, pr *intProfile) {
	p.head = intHead{first: xs[0], shift: pr.shift}
	h := &p.head
	switch p.t.id() {
	case idFrame:
		h.first = pr.least
	case idDelta:
		h.base = int64(pr.leastRise) >> h.shift
	case idDeltaOfD:
		h.base = (xs[1] - xs[0]) >> h.shift
	case idLine:
		fitLine(h, xs)
	}
	p.u = resize(p.u, p.t.residuals(len(xs)))
	p.t.forward(h, xs, p.u)
	p.layers.countLengths(p.u)
}

// divide finds layers and size. It may stop with any size of limit or more when it
// can't be less.
func (p *intPlan) divide(limit int) {
	p.size = p.headLen()
	p.layers.plan(len(p.u), limit-p.size)
	p.size += p.layers.size
}

// fitLine chooses a line below all values. Schedules run in whole half-seconds, and
// an average over few jittered values misses that by a little, which would add up.
func fitLine(h *intHead, xs []int64) {
	n := int64(len(xs) - 1)
	step := (xs[n] - xs[0]) / n
	const whole = 500
	if r := (step + whole/2) / whole * whole; r > 0 && max(r-step, step-r) < whole/16 {
		step = r
	}
	h.base = step >> h.shift
	var low, at int64
	for _, x := range xs {
		low = min(low, (x-xs[0])>>h.shift-at)
		at += h.base
	}
	h.first = xs[0] + low<<h.shift
}

func (p *intPlan) headLen() int {
	n := 1 + uvarintLen(zigzag(p.head.first))
	if p.head.shift > 0 {
		n++
	}
	if p.t.hasBase() {
		n += uvarintLen(zigzag(p.head.base))
	}
	return n
}

// appendInts appends a column as planned, with flag set in its mode byte.
func (e *Encoder) appendInts(dst []byte, p *intPlan, flag byte) []byte {
	mode := p.t.id() | flag
	if p.head.shift > 0 {
		mode |= hasShift
	}
	dst = append(dst, mode)
	dst = appendZigzag(dst, p.head.first)
	if p.head.shift > 0 {
		dst = append(dst, byte(p.head.shift))
	}
	if p.t.hasBase() {
		dst = appendZigzag(dst, p.head.base)
	}
	if len(p.u) == 0 {
		return dst
	}
	return e.appendLayers(dst, p.u, &p.layers)
}

// ints decodes a column whose mode byte was mode into dst, which is not empty, and
// returns what follows it. base is added to all values.
func (d *Decoder) ints(mode byte, b []byte, dst []int64, base int64) ([]byte, error) {
	t := transformOf(mode & idMask)
	if t == nil {
		return nil, ErrUnknownEncoding
	}
	h := &d.head // not a local: it would escape through the interface
	*h = intHead{}
	var ok bool
	if h.first, b, ok = readZigzag(b); !ok {
		return nil, ErrCorrupt
	}
	h.first += base
	if mode&hasShift != 0 {
		if len(b) == 0 || b[0] > 63 {
			return nil, ErrCorrupt
		}
		h.shift, b = uint(b[0]), b[1:]
	}
	if t.hasBase() {
		if h.base, b, ok = readZigzag(b); !ok {
			return nil, ErrCorrupt
		}
	}
	n := t.residuals(len(dst))
	d.u = resize(d.u, n)
	if n > 0 {
		var err error
		if b, err = d.layers(b, d.u); err != nil {
			return nil, err
		}
	}
	t.inverse(h, d.u, dst)
	return b, nil
}
