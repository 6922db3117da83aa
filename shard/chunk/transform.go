package chunk

// Ids of the transforms of a column of int64s, in the low 6 bits of its mode byte.
// They are part of the format; never renumber, never reuse.
const (
	idLinear   byte = 1
	idFrame    byte = 2
	idDelta    byte = 3
	idDeltaZig byte = 4
	idDeltaOfD byte = 5
	idLine     byte = 6
	idSchedule byte = 7
)

// intHead is what a transform keeps beside the residuals. All arithmetic wraps, so
// that every column comes back by construction, however far its values lie apart.
type intHead struct {
	first int64 // where the column starts
	base  int64 // what is taken off before packing; in units of 1<<shift
	shift uint  // low bits that all differences have zero: 0 to 63
}

// transform turns a column into residuals that are small, and back. A new one joins
// by an id and a line in transformOf.
type transform interface {
	id() byte
	hasBase() bool
	// residuals is how many a column of n >= 1 values has.
	residuals(n int) int
	// forward fills u, which has residuals(len(xs)) elements.
	forward(h *intHead, xs []int64, u []uint64)
	// inverse fills dst, which is not empty, from residuals(len(dst)) elements.
	inverse(h *intHead, u []uint64, dst []int64)
}

// transformOf returns nil for an unknown id.
func transformOf(id byte) transform {
	switch id {
	case idLinear:
		return linear{}
	case idFrame:
		return frame{}
	case idDelta:
		return delta{}
	case idDeltaZig:
		return deltaZig{}
	case idDeltaOfD:
		return deltaOfDelta{}
	case idLine:
		return line{}
	case idSchedule:
		return schedule{}
	}
	return nil
}

// linear: the difference from value to value is always base. No residuals.
type linear struct{}

func (linear) id() byte                            { return idLinear }
func (linear) hasBase() bool                       { return true }
func (linear) residuals(int) int                   { return 0 }
func (linear) forward(*intHead, []int64, []uint64) {}

func (linear) inverse(h *intHead, _ []uint64, dst []int64) {
	x := h.first
	step := h.base << h.shift
	for i := range dst {
		dst[i] = x
		x += step
	}
}

// schedule is linear with base in units of 1000: scrapes come every so many seconds, and
// that number takes one byte where milliseconds take three.
type schedule struct{}

const scheduleUnit = 1000

func (schedule) id() byte                            { return idSchedule }
func (schedule) hasBase() bool                       { return true }
func (schedule) residuals(int) int                   { return 0 }
func (schedule) forward(*intHead, []int64, []uint64) {}

func (schedule) inverse(h *intHead, _ []uint64, dst []int64) {
	linear{}.inverse(&intHead{first: h.first, base: h.base * scheduleUnit, shift: h.shift}, nil, dst)
}

// frame: distance to the smallest value, which is first. For what jumps about a level.
type frame struct{}

func (frame) id() byte            { return idFrame }
func (frame) hasBase() bool       { return false }
func (frame) residuals(n int) int { return n }

func (frame) forward(h *intHead, xs []int64, u []uint64) {
	for i, x := range xs {
		u[i] = uint64(x-h.first) >> h.shift
	}
}

func (frame) inverse(h *intHead, u []uint64, dst []int64) {
	for i, v := range u[:len(dst)] {
		dst[i] = h.first + int64(v<<h.shift)
	}
}

// delta: difference to the value before, less base. Differences below base wrap and
// become long residuals, so it is for what hardly ever falls: counters, with resets.
type delta struct{}

func (delta) id() byte            { return idDelta }
func (delta) hasBase() bool       { return true }
func (delta) residuals(n int) int { return n - 1 }

func (delta) forward(h *intHead, xs []int64, u []uint64) {
	prev := xs[0]
	for i, x := range xs[1:] {
		u[i] = uint64((x-prev)>>h.shift - h.base)
		prev = x
	}
}

func (delta) inverse(h *intHead, u []uint64, dst []int64) {
	x := h.first
	dst[0] = x
	dst = dst[1:]
	for i, v := range u[:len(dst)] {
		x += (int64(v) + h.base) << h.shift
		dst[i] = x
	}
}

// deltaZig: difference to the value before, zigzag: for what falls as often as it rises.
type deltaZig struct{}

func (deltaZig) id() byte            { return idDeltaZig }
func (deltaZig) hasBase() bool       { return false }
func (deltaZig) residuals(n int) int { return n - 1 }

func (deltaZig) forward(h *intHead, xs []int64, u []uint64) {
	prev := xs[0]
	for i, x := range xs[1:] {
		u[i] = zigzag((x - prev) >> h.shift)
		prev = x
	}
}

func (deltaZig) inverse(h *intHead, u []uint64, dst []int64) {
	x := h.first
	dst[0] = x
	dst = dst[1:]
	for i, v := range u[:len(dst)] {
		x += unzigzag(v) << h.shift
		dst[i] = x
	}
}

// deltaOfDelta: difference of differences, zigzag; base is the first difference. For
// what grows at a steady rate.
type deltaOfDelta struct{}

func (deltaOfDelta) id() byte            { return idDeltaOfD }
func (deltaOfDelta) hasBase() bool       { return true }
func (deltaOfDelta) residuals(n int) int { return max(n-2, 0) }

func (deltaOfDelta) forward(h *intHead, xs []int64, u []uint64) {
	if len(xs) < 2 {
		return
	}
	prev, was := xs[1], h.base
	for i, x := range xs[2:] {
		d := (x - prev) >> h.shift
		u[i] = zigzag(d - was)
		prev, was = x, d
	}
}

func (deltaOfDelta) inverse(h *intHead, u []uint64, dst []int64) {
	dst[0] = h.first
	if len(dst) < 2 {
		return
	}
	d := h.base
	x := h.first + d<<h.shift
	dst[1] = x
	dst = dst[2:]
	for i, v := range u[:len(dst)] {
		d += unzigzag(v)
		x += d << h.shift
		dst[i] = x
	}
}

// line: distance to the line that starts at first and rises by base. For
// timestamps that jitter about their schedule, of which each difference would carry
// the jitter of two.
type line struct{}

func (line) id() byte            { return idLine }
func (line) hasBase() bool       { return true }
func (line) residuals(n int) int { return n }

func (line) forward(h *intHead, xs []int64, u []uint64) {
	var at int64
	for i, x := range xs {
		u[i] = uint64((x-h.first)>>h.shift - at)
		at += h.base
	}
}

func (line) inverse(h *intHead, u []uint64, dst []int64) {
	var at int64
	for i, v := range u[:len(dst)] {
		dst[i] = h.first + (int64(v)+at)<<h.shift
		at += h.base
	}
}
