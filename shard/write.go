package shard

import (
	"encoding/binary"
	"fmt"

	"github.com/strandline-db/strandline/shard/model"
)

// Item is one series of a batch on its way to this shard.
type Item struct {
	Series int    // position in Batch.Series
	Hash   uint64 // of Key
	Key    []byte
	no     uint32
}

// Limits bound what a write operation may hold.
type Limits struct {
	MinT, MaxT int64 // milliseconds, inclusive; samples outside are left out and reported
	MaxSeries  int   // active series in this shard; 0: no limit. Travels in the operation
}

// Op builds the write operation of one request for one shard. Reusable.
type Op struct {
	w        writeOp
	blob     []byte
	items    []Item
	counts   []Tally
	Rejected []model.Rejection // samples outside the limits
	moved    []Item
}

// Tally counts what a write operation brings or loses of one series.
type Tally struct{ Samples, Histograms, Exemplars int }

// Reset empties the operation and keeps its memory.
func (o *Op) Reset() {
	o.w.reset()
	clear(o.items)
	clear(o.moved)
	clear(o.Rejected)
	o.items, o.counts, o.moved, o.Rejected = o.items[:0], o.counts[:0], o.moved[:0], o.Rejected[:0]
}

// Empty reports whether the operation holds no series.
func (o *Op) Empty() bool { return o.w.n == 0 }

// Bytes returns the operation, valid until the next Reset.
func (o *Op) Bytes(l *Limits) []byte { return o.w.finish(l.MaxSeries) }

// Encode adds items of b. Series known to the head go by number; of the others
// those with a canonical key go with their labels, and the rest are returned for
// the caller to canonicalise. The result is valid until the next Reset.
func (s *Shard) Encode(o *Op, b *model.Batch, items []Item, l *Limits) (unknown []Item) {
	h := s.head
	h.mu.RLock()
	for i := range items {
		it := &items[i]
		it.no = 0
		if x := h.lookupLocked(it.Hash, it.Key); x != nil {
			it.no = x.no
		}
	}
	h.mu.RUnlock()
	for i := range items {
		it := &items[i]
		if it.no == 0 && model.CheckKey(it.Key) != nil {
			o.moved = append(o.moved, *it)
			continue
		}
		o.add(b, it, l)
	}
	return o.moved
}

func (o *Op) add(b *model.Batch, it *Item, l *Limits) {
	bs := &b.Series[it.Series]
	floats, out := 0, 0
	var worst int64
	for _, t := range b.T[bs.From:bs.To] {
		if t < l.MinT || t > l.MaxT {
			out, worst = out+1, t
			continue
		}
		floats++
	}
	hist := inside(b.Hist[bs.HFrom:bs.HTo], l, func(h *model.HistogramSample) int64 { return h.T })
	ex := inside(b.Exemplars[bs.EFrom:bs.ETo], l, func(e *model.Exemplar) int64 { return e.T })
	if n := bs.HTo - bs.HFrom - hist; n > 0 {
		out, worst = out+n, firstOutside(b.Hist[bs.HFrom:bs.HTo], l)
	}
	if out > 0 {
		o.Rejected = append(o.Rejected, model.Rejection{Series: it.Series, Err: l.reason(worst)})
	}
	if floats+hist+ex == 0 {
		return
	}
	o.items = append(o.items, *it)
	o.counts = append(o.counts, Tally{floats, hist, ex})
	w := &o.w
	w.series(it.no, it.Key)
	hasST := len(b.ST) > 0 && anyNonZero(b.ST[bs.From:bs.To])
	w.counts(floats, hist > 0, ex > 0, hasST)
	for i := bs.From; i < bs.To; i++ {
		t := b.T[i]
		if t < l.MinT || t > l.MaxT {
			continue
		}
		w.time(t)
		w.float(b.V[i])
		if hasST {
			w.startTime(t, b.ST[i])
		}
	}
	if hist > 0 {
		o.addHistograms(b.Hist[bs.HFrom:bs.HTo], hist, l)
	}
	if ex > 0 {
		o.addExemplars(b.Exemplars[bs.EFrom:bs.ETo], ex, l)
	}
}

// startTime writes how long before t the series began, plus one if that is not
// negative; 0 stands for unknown.
func (w *writeOp) startTime(t, st int64) {
	d := int64(0)
	if st != 0 {
		if d = t - st; d >= 0 {
			d++
		}
	}
	w.body = binary.AppendVarint(w.body, d)
}

func (o *Op) addHistograms(hs []model.HistogramSample, n int, l *Limits) {
	o.w.body = binary.AppendUvarint(o.w.body, uint64(n))
	for i := range hs {
		if h := &hs[i]; h.T >= l.MinT && h.T <= l.MaxT {
			o.blob = AppendHistogram(o.blob[:0], h)
			o.w.blob(h.T, h.ST, o.blob)
		}
	}
}

func (o *Op) addExemplars(es []model.Exemplar, n int, l *Limits) {
	o.w.body = binary.AppendUvarint(o.w.body, uint64(n))
	for i := range es {
		if e := &es[i]; e.T >= l.MinT && e.T <= l.MaxT {
			o.blob = appendExemplar(o.blob[:0], e)
			o.w.blob(e.T, 0, o.blob)
		}
	}
}

func inside[T any](xs []T, l *Limits, at func(*T) int64) int {
	n := 0
	for i := range xs {
		if t := at(&xs[i]); t >= l.MinT && t <= l.MaxT {
			n++
		}
	}
	return n
}

func firstOutside(hs []model.HistogramSample, l *Limits) int64 {
	for i := range hs {
		if t := hs[i].T; t < l.MinT || t > l.MaxT {
			return t
		}
	}
	return 0
}

func anyNonZero(xs []int64) bool {
	for _, x := range xs {
		if x != 0 {
			return true
		}
	}
	return false
}

// reason says why a sample at t, outside the limits, is not stored.
func (l *Limits) reason(t int64) error {
	if t < l.MinT {
		return fmt.Errorf("%w: timestamp %d is before %d", model.ErrTooOld, t, l.MinT)
	}
	return fmt.Errorf("%w: timestamp %d is after %d", model.ErrTooNew, t, l.MaxT)
}

// Outcome adds to res what became of the operation, and returns the items whose
// numbers were gone when it was applied: encode them again. A series may be named more than
// once in res.Rejected, with what weighs most first.
func (o *Op) Outcome(r *Result, l *Limits, res *model.AppendResult) (again []Item) {
	refused := r.Refused
	for i, c := range o.counts {
		if len(refused) > 0 && refused[0].Series == i {
			if refused[0].Gone {
				again = append(again, o.items[i])
			} else {
				res.Rejected = append(res.Rejected, model.Rejection{
					Series: o.items[i].Series,
					Err:    fmt.Errorf("%w: %d in this shard (raise max-series)", model.ErrSeriesLimit, l.MaxSeries),
				})
			}
			refused = refused[1:]
			continue
		}
		res.Samples += c.Samples
		res.Histograms += c.Histograms
		res.Exemplars += c.Exemplars
	}
	res.Rejected = append(res.Rejected, o.Rejected...)
	for _, x := range r.TooOld {
		res.Samples -= x.Samples
		res.Histograms -= x.Histograms
		res.Exemplars -= x.Exemplars
		if x.Exemplars == 0 || x.Samples+x.Histograms > 0 { // as in add, exemplars alone are no reason
			res.Rejected = append(res.Rejected, model.Rejection{Series: o.items[x.Series].Series, Err: model.ErrTooOld})
		}
	}
	return again
}

// Idle returns the numbers of series that have brought no sample during the last
// n flushes.
func (s *Shard) Idle(n int) []uint32 {
	h := s.head
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []uint32
	for x := range h.mu.byNo.all {
		if int(x.idle) >= n && !x.active.any() && x.older == nil {
			out = append(out, x.no)
		}
	}
	return out
}
