package shard

import (
	"math"
	"slices"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
)

// tailCap is how many samples a series gathers before they are sealed into a
// chunk. Small, because every active series holds one tail of raw samples.
const tailCap = 32

// A tail keeps time and value side by side, so that a sample touches one cache line.
type tail struct {
	at [tailCap]point
}

type point struct {
	t int64
	v float64
}

// sample is one float out of order of time.
type sample struct {
	t, st int64
	v     float64
}

// blob is one native histogram or exemplar, encoded (see blob.go).
type blob struct {
	t, st int64
	data  []byte
}

// store is what one series gathered in one generation of the head. In order:
// sealed chunks, then the tail. Out of order, and later in the log than any
// in-order sample of the same timestamp: late.
type store struct {
	tail   *tail
	st     *[tailCap]int64 // start timestamps beside the tail; nil while it has none
	n      int32           // samples in the tail
	chunks int32           // sealed chunks
	minT   int64           // over everything here; valid if any()
	maxT   int64
	sealed []byte // sealed chunks, each behind its uvarint length; only ever appended to
	late   *late
	more   *blobs
}

// blobs are in order of application. A histogram here is newer than any float of
// the same timestamp in the store: a float that comes later removes it.
type blobs struct {
	hist, exemplars         []blob
	histMaxT                int64      // over hist
	histPlaces, otherPlaces blobPlaces // of the exemplars
}

// dropHist removes what histograms there are at t. Snapshots share the old slice.
func (a *store) dropHist(t int64) bool {
	if a.more == nil || len(a.more.hist) == 0 || t > a.more.histMaxT {
		return false
	}
	if a.more.histPlaces.last(a.more.hist, t) < 0 {
		return false
	}
	a.more.hist = slices.DeleteFunc(slices.Clone(a.more.hist), func(b blob) bool { return b.t == t })
	a.more.histPlaces.forget()
	return true
}

func (s *store) any() bool { return s.n > 0 || s.chunks > 0 || s.late != nil || s.more != nil }

func (s *store) widen(t int64) {
	if !s.any() {
		s.minT, s.maxT = t, t
		return
	}
	s.minT, s.maxT = min(s.minT, t), max(s.maxT, t)
}

// series is one series of the head. Its key never changes; the rest is guarded
// by the shard's lock. What the usual sample touches comes first: one cache line.
type series struct {
	lastT   int64   // newest in-order float since the head began, or math.MinInt64
	lastV   float64 // newest float at lastT
	no      uint32
	idle    uint8    // flushes since the last sample
	hidden  bool     // what is at lastT is not lastV alone: it has a start time, or a histogram has replaced it
	watched interest // whether someone wants to hear of its samples
	active  store
	older   *generation // ended and not yet in live blocks, oldest first; usually nil
	key     string
}

func newSeries(no uint32, key string) *series {
	return &series{no: no, key: key, lastT: math.MinInt64}
}

// generation is what a series has gathered up to one log entry.
type generation struct {
	store
	to   uint64      // the entry: nothing behind it is here
	next *generation // the one after it
}

// endGeneration makes what is active a generation that ends with an entry.
func (s *series) endGeneration(to uint64) {
	at := &s.older
	for *at != nil {
		at = &(*at).next
	}
	*at = &generation{store: s.active, to: to}
	s.active = store{}
}

// outcome of storing one float.
type outcome uint8

const (
	stored outcome = iota
	duplicate
	overwritten
)

// addFloat stores a sample.
func (s *series) addFloat(h *headMem, t int64, v float64, st int64) outcome {
	a := &s.active
	replaced := a.more != nil && a.dropHist(t)
	if t <= s.lastT {
		out := s.addLate(h, t, v, st)
		if replaced {
			out = overwritten
		}
		return out
	}
	a.widen(t)
	if a.tail == nil {
		a.tail = h.tails.get()
	}
	if a.n == tailCap {
		s.seal(h)
	}
	a.tail.at[a.n] = point{t, v}
	if st != 0 && a.st == nil {
		a.st = new([tailCap]int64)
	}
	if a.st != nil {
		a.st[a.n] = st
	}
	a.n++
	s.lastT, s.lastV, s.hidden = t, v, st != 0
	if replaced {
		return overwritten
	}
	return stored
}

// addLate stores a sample at or before the newest. The usual case is a retry of
// what was just sent, which must leave nothing behind. One that differs in its start time is
// none: another replica, which has flushed what was there, has only the later one.
func (s *series) addLate(h *headMem, t int64, v float64, st int64) outcome {
	a := &s.active
	if t == s.lastT {
		if math.Float64bits(v) == math.Float64bits(s.lastV) && st == 0 && !s.hidden {
			return duplicate
		}
		s.lastV, s.hidden = v, st != 0
	}
	out := stored
	old, ok := a.late.find(t)
	if !ok {
		old, ok = a.inOrder(h, t)
	}
	if ok {
		if math.Float64bits(old.v) == math.Float64bits(v) && old.st == st {
			return duplicate
		}
		out = overwritten
	}
	a.addLate(sample{t: t, v: v, st: st})
	h.bytes += 24
	return out
}

func (a *store) addLate(x sample) {
	a.widen(x.t)
	if a.late == nil {
		a.late = &late{}
	}
	a.late.add(x)
}

// hasFloat tells whether the store has a float at t.
func (a *store) hasFloat(h *headMem, t int64) bool {
	if _, ok := a.late.find(t); ok {
		return true
	}
	_, ok := a.inOrder(h, t)
	return ok
}

// inOrder finds the in-order sample at t.
func (a *store) inOrder(h *headMem, t int64) (sample, bool) {
	if a.n > 0 && a.tail.at[0].t <= t {
		for i, p := range a.tail.at[:a.n] {
			if p.t != t {
				continue
			}
			x := sample{t: t, v: p.v}
			if a.st != nil {
				x.st = a.st[i]
			}
			return x, true
		}
		return sample{}, false
	}
	if a.chunks == 0 || t < a.minT {
		return sample{}, false
	}
	c, err := h.sealed.around(&h.dec, a.sealed, t)
	if err != nil {
		return sample{}, false
	}
	i, ok := slices.BinarySearch(c.T, t)
	if !ok {
		return sample{}, false
	}
	x := sample{t: t, v: c.V[i]}
	if i < len(c.ST) {
		x.st = c.ST[i]
	}
	return x, true
}

// seal moves the full tail into a chunk.
func (s *series) seal(h *headMem) {
	a := &s.active
	var st []int64
	if a.st != nil {
		st = a.st[:a.n]
	}
	h.scratch.Reset()
	for _, p := range a.tail.at[:a.n] {
		h.scratch.T, h.scratch.V = append(h.scratch.T, p.t), append(h.scratch.V, p.v)
	}
	h.buf = h.enc.Floats(h.buf[:0], h.scratch.T, h.scratch.V, st)
	before := cap(a.sealed)
	a.sealed = appendFramed(a.sealed, h.buf)
	h.bytes += int64(cap(a.sealed) - before)
	a.chunks++
	a.n = 0
	a.st = nil
}

// appendFramed appends b behind its length, growing by a quarter rather than
// double: a hundred thousand of these live at once.
func appendFramed(dst, b []byte) []byte {
	need := len(dst) + len(b) + 3
	if need > cap(dst) {
		grown := make([]byte, len(dst), need+need/4)
		copy(grown, dst)
		dst = grown
	}
	n := len(b)
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(append(dst, byte(n)), b...)
}

func (a *store) readSealed(d *chunk.Decoder, c *model.Columns) error {
	r := reader{b: a.sealed}
	for len(r.b) > 0 {
		b := r.bytes()
		if r.err != nil {
			return r.err
		}
		var err error
		if c.T, c.V, c.ST, err = d.Floats(b, c.T, c.V, c.ST); err != nil {
			return err
		}
	}
	return nil
}

// read appends every sample of the store to m as one source, in-order floats
// first, late ones after: m keeps the last of each timestamp.
func (a *store) read(d *chunk.Decoder, m *merger) error {
	if a == nil || !a.any() {
		return nil
	}
	m.begin()
	if err := a.readSealed(d, &m.cols); err != nil {
		return err
	}
	if a.n > 0 {
		for i, p := range a.tail.at[:a.n] {
			st := int64(0)
			if a.st != nil {
				st = a.st[i]
			}
			m.float(p.t, p.v, st)
		}
	}
	a.late.each(func(x sample) { m.float(x.t, x.v, x.st) })
	if a.more != nil {
		m.hist = append(m.hist, a.more.hist...)
	}
	return nil
}

// snapshot copies what readers may look at without the lock: the sealed bytes
// are append-only, the tail is not.
func (a *store) snapshot() *store {
	c := *a
	if a.n > 0 {
		t := *a.tail
		c.tail = &t
		if a.st != nil {
			st := *a.st
			c.st = &st
		}
	} else {
		c.tail = nil
	}
	c.late = a.late.snapshot()
	if a.more != nil {
		m := *a.more
		c.more = &m
	}
	return &c
}
