package shard

import (
	"bytes"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/index"
	"github.com/strandline-db/strandline/shard/model"
)

// headMem is what the one writer of a head reuses from sample to sample.
type headMem struct {
	enc     chunk.Encoder
	dec     chunk.Decoder
	buf     []byte
	scratch model.Columns
	tails   tailPool
	sealed  sealedChunks // looked into last
	bytes   int64        // sealed and late bytes of the active generation, roughly
}

// tailPool hands out tails, cut from slabs so that a hundred thousand of them
// are a few hundred objects to the garbage collector.
type tailPool struct {
	slab []tail
	free []*tail
}

const tailSlab = 64

func (p *tailPool) get() *tail {
	if n := len(p.free); n > 0 {
		t := p.free[n-1]
		p.free = p.free[:n-1]
		return t
	}
	if len(p.slab) == 0 {
		p.slab = make([]tail, tailSlab)
	}
	t := &p.slab[0]
	p.slab = p.slab[1:]
	return t
}

func (p *tailPool) put(t *tail) { p.free = append(p.free, t) }

// head is a shard's newest samples. apply is its only writer.
type head struct {
	mu struct {
		sync.RWMutex
		table    map[uint64]*series // by key hash; chained through clash
		clash    map[string]*series // keys whose hash was taken
		byNo     numbers            // what payloads may name
		held     map[uint32]*series // what reads see: byNo, and dropped series until they are flushed
		postings *index.Mem
		nextNo   uint32
		epoch    uint64   // grows when another replica's state replaces this one
		applied  uint64   // index of the last applied log entry
		cut      int64    // samples before it are gone
		choices  []Choice // in order of their entries; replaced, never changed
		samples  int64    // not being flushed
		minT     int64    // of these
		maxT     int64
		counts   Counts
		watch    watching
	}
	mem   headMem
	shown atomic.Uint64 // mu.applied, once what it brought has been handed to the watchers, or waits for them
	waits atomic.Bool   // something does: see HandOver
}

// Counts are totals since the shard was opened.
type Counts struct {
	Samples, Duplicates, Overwritten, TooOld int64
	Histograms, Exemplars                    int64
	Unchosen                                 int64 // samples of senders that merges dropped for another's
}

func newHead() *head {
	h := &head{}
	h.clearLocked()
	return h
}

func (h *head) clearLocked() {
	h.mu.table = map[uint64]*series{}
	h.mu.clash = map[string]*series{}
	h.mu.byNo = numbers{}
	h.mu.held = map[uint32]*series{}
	h.mu.postings = index.NewMem()
	h.mu.nextNo = 1
	h.mu.cut, h.mu.choices = math.MinInt64, nil
	h.mu.samples, h.mem.bytes = 0, 0
	h.mu.minT, h.mu.maxT = math.MaxInt64, math.MinInt64
}

// setLocked makes the head that of a manifest and its series table.
func (h *head) setLocked(m *Manifest, table []tableEntry) {
	h.clearLocked()
	h.mu.epoch++
	h.mu.applied, h.mu.cut, h.mu.choices = m.Applied, m.Cut, slices.Clip(m.Choices)
	for _, e := range table {
		h.insertLocked(e.no, e.key)
	}
	h.mu.nextNo = max(h.mu.nextNo, m.NextNo)
	if h.anyWatchLocked() {
		h.rewatchLocked()
	}
}

// current tells whether a cut is of the state that the head has now.
func (h *head) current(c *Cut) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return c.epoch == h.mu.epoch
}

// lookupLocked finds a series by its key; nil if the head does not know it.
func (h *head) lookupLocked(hash uint64, key []byte) *series {
	s := h.mu.table[hash]
	if s == nil || s.key == string(key) {
		return s
	}
	return h.mu.clash[string(key)]
}

func (h *head) insertLocked(no uint32, key string) *series {
	s := newSeries(no, key)
	hash := model.HashKey([]byte(key))
	if _, taken := h.mu.table[hash]; taken {
		h.mu.clash[key] = s
	} else {
		h.mu.table[hash] = s
	}
	h.mu.byNo.put(s)
	h.mu.held[no] = s
	h.mu.postings.Add(no, key)
	h.mu.nextNo = max(h.mu.nextNo, no+1)
	return s
}

// removeLocked makes numbers unknown to later payloads. It must not depend on what
// has been flushed, which differs between replicas: samples still in memory stay
// readable under the old number until the next flush takes them.
func (h *head) removeLocked(numbers []uint32) {
	for _, no := range numbers {
		s := h.mu.byNo.get(no)
		if s == nil {
			continue
		}
		h.mu.byNo.drop(no)
		if s.watched != unwatched {
			h.unmarkLocked(s)
		}
		if hash := model.HashKey([]byte(s.key)); h.mu.table[hash] == s {
			delete(h.mu.table, hash)
		} else {
			delete(h.mu.clash, s.key)
		}
	}
	h.purgeLocked(numbers)
}

// purgeLocked forgets series that are neither known by number nor hold samples.
func (h *head) purgeLocked(numbers []uint32) {
	gone := make([]uint32, 0, len(numbers))
	for _, no := range numbers {
		s := h.mu.held[no]
		if s == nil || h.mu.byNo.get(no) != nil || s.active.any() || s.older != nil {
			continue
		}
		delete(h.mu.held, no)
		gone = append(gone, no)
	}
	if len(gone) > 0 {
		h.mu.postings.Remove(gone)
	}
}

// Result says what apply made of one operation.
type Result struct {
	// Refused lists, by position in the operation, the series of which nothing was
	// stored: known by a number that has been dropped (Gone), or new beyond the limit.
	Refused []Refusal
	// TooOld lists the series that had something before the retention cut, which is not stored.
	TooOld []Loss
}

// Loss is what is not stored of one series of a write operation, by its position.
type Loss struct {
	Series int
	Tally
}

// Refusal is one refused series of a write operation.
type Refusal struct {
	Series int
	Gone   bool // the number is gone: send the labels; else: the series limit
}

// apply is the only code that changes what a shard holds. Its callers are the
// commit of new entries and the replay of old ones; it looks at nothing but the
// head and the payload, so every replica comes to the same state.
func (h *head) apply(idx uint64, payload []byte) ([]Result, error) {
	h.mu.Lock()
	out, err := h.applyLocked(idx, payload)
	wake := h.showLocked()
	h.mu.Unlock()
	wakeAll(wake)
	return out, err
}

func (h *head) applyLocked(idx uint64, payload []byte) ([]Result, error) {
	r := reader{b: payload}
	if v := r.byte(); r.err != nil || v != payloadVersion {
		r.fail()
		return nil, r.err
	}
	var out []Result
	var choices []Choice
	for len(r.b) > 0 && r.err == nil {
		switch r.byte() {
		case opWrite:
			out = append(out, h.applyWriteLocked(&r))
		case opCut:
			h.mu.cut = max(h.mu.cut, r.varint())
			h.eachWatchLocked(func(w *Watch) { w.tell().Cut = h.mu.cut })
			out = append(out, Result{})
		case opDrop:
			numbers := make([]uint32, r.count(1))
			for i := range numbers {
				numbers[i] = uint32(r.uvarint())
			}
			h.removeLocked(numbers)
			out = append(out, Result{})
		case opChoose:
			choices = append(choices, Choice{Index: idx, T: r.varint(), Label: string(r.bytes())})
			out = append(out, Result{})
		default:
			r.fail()
		}
	}
	for _, c := range choices {
		h.chooseLocked(c)
	}
	h.mu.applied = idx
	return out, r.err
}

func (h *head) applyWriteLocked(r *reader) Result {
	var res Result
	limit, n := r.uvarint(), r.uvarint()
	var t int64
	for i := 0; i < int(n) && r.err == nil; i++ {
		s, why := h.resolveLocked(r, limit)
		if s == nil {
			why.Series = i
			res.Refused = append(res.Refused, why)
		}
		if old := h.applySeriesLocked(r, s, &t); old != (Tally{}) {
			res.TooOld = append(res.TooOld, Loss{i, old})
		}
	}
	return res
}

func (h *head) resolveLocked(r *reader, limit uint64) (*series, Refusal) {
	if no := r.uvarint(); no != 0 {
		return h.mu.byNo.get(uint32(no)), Refusal{Gone: true}
	}
	key := r.bytes()
	if r.err != nil {
		return nil, Refusal{}
	}
	if s := h.lookupLocked(model.HashKey(key), key); s != nil {
		return s, Refusal{}
	}
	if limit != 0 && uint64(h.mu.byNo.live) >= limit {
		return nil, Refusal{}
	}
	s := h.insertLocked(h.mu.nextNo, string(bytes.Clone(key)))
	if h.anyWatchLocked() {
		h.watchNewLocked(s)
	}
	return s, Refusal{}
}

// applySeriesLocked consumes one series' samples and stores them, if s is not nil. It counts
// what is too old.
func (h *head) applySeriesLocked(r *reader, s *series, t *int64) (old Tally) {
	c := r.uvarint()
	for k := c >> 3; k > 0 && r.err == nil; k-- {
		*t += r.varint()
		v, st := r.float(), int64(0)
		if c&1 != 0 {
			st = r.startTime(*t)
		}
		switch {
		case s == nil || r.err != nil:
		case *t < h.mu.cut:
			old.Samples++
		default:
			h.addFloatLocked(s, *t, v, st)
		}
	}
	if c&4 != 0 {
		old.Histograms = h.applyBlobsLocked(r, s, t, false)
	}
	if c&2 != 0 {
		old.Exemplars = h.applyBlobsLocked(r, s, t, true)
	}
	h.mu.counts.TooOld += int64(old.Samples + old.Histograms + old.Exemplars)
	return old
}

// startTime is the inverse of writeOp.startTime.
func (r *reader) startTime(t int64) int64 {
	switch d := r.varint(); {
	case d > 0:
		return t - (d - 1)
	case d < 0:
		return t - d
	}
	return 0
}

func (h *head) addFloatLocked(s *series, t int64, v float64, st int64) {
	h.mu.counts.Samples++
	h.mu.samples++
	h.mu.minT, h.mu.maxT = min(h.mu.minT, t), max(h.mu.maxT, t)
	out := s.addFloat(&h.mem, t, v, st)
	switch out {
	case duplicate:
		h.mu.counts.Duplicates++
	case overwritten:
		h.mu.counts.Overwritten++
	}
	s.idle = 0 // beside what addFloat has just touched
	if s.watched != unwatched && out != duplicate {
		h.gatherLocked(s, t, st, v, nil)
	}
}

func (h *head) applyBlobsLocked(r *reader, s *series, t *int64, exemplars bool) (old int) {
	for k := r.uvarint(); k > 0 && r.err == nil; k-- {
		*t += r.varint()
		st := r.varint()
		data := r.bytes()
		switch {
		case s == nil || r.err != nil:
		case *t < h.mu.cut:
			old++
		default:
			h.addBlobLocked(s, blob{t: *t, st: st, data: bytes.Clone(data)}, exemplars)
		}
	}
	return old
}

func (h *head) addBlobLocked(s *series, b blob, exemplar bool) {
	a := &s.active
	a.widen(b.t)
	if a.more == nil {
		a.more = &blobs{}
	}
	list, places := &a.more.hist, &a.more.histPlaces
	if exemplar {
		list, places = &a.more.exemplars, &a.more.otherPlaces
		h.mu.counts.Exemplars++
	} else {
		h.mu.counts.Histograms++
	}
	last := places.last(*list, b.t)
	if last >= 0 {
		if x := &(*list)[last]; x.st == b.st && bytes.Equal(x.data, b.data) {
			h.mu.counts.Duplicates++
			return
		}
		h.mu.counts.Overwritten++
	}
	if !exemplar {
		h.hideFloatLocked(s, b.t, last >= 0)
	}
	*list = append(*list, b)
	if s.watched != unwatched && !exemplar {
		h.gatherBlobLocked(s, &b)
	}
	h.mem.bytes += int64(len(b.data)) + 40
	h.mu.minT, h.mu.maxT = min(h.mu.minT, b.t), max(h.mu.maxT, b.t)
	h.mu.samples++
	s.idle = 0
}

// hideFloatLocked prepares a series for a histogram at t, which replaces the float
// that may be there.
func (h *head) hideFloatLocked(s *series, t int64, seen bool) {
	m := s.active.more
	if len(m.hist) == 0 || t > m.histMaxT {
		m.histMaxT = t
	}
	if t > s.lastT {
		return
	}
	s.hidden = s.hidden || t == s.lastT
	if !seen && s.active.hasFloat(&h.mem, t) {
		h.mu.counts.Overwritten++
	}
}

// countLost adds what a merge dropped.
func (h *head) countLost(c *Counts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.counts.Overwritten += c.Overwritten
	h.mu.counts.Unchosen += c.Unchosen
}
