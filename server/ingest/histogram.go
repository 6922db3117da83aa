package ingest

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/strandline-db/strandline/shard/model"
)

// wireHistogram is a Histogram message of either protocol, which differ only in
// the start timestamp.
type wireHistogram struct {
	isFloat          bool
	count, zero      uint64 // integers, or bits of floats
	zeroFloat        bool
	sum, zeroWidth   float64
	schema           int32
	hint             uint64
	t, st            int64
	nSpans, pSpans   []histogram.Span
	nDeltas, pDeltas []int64
	nCounts, pCounts []float64
	custom           []float64
}

// histogram reads a Histogram message. Whether the histogram makes sense is
// judged later, see checkHistograms.
func (d *decoder) histogram(b []byte, v2 bool) error {
	// A bucket may take one byte on the wire and eight in memory.
	if err := d.spend(costHistogram + 8*len(b)); err != nil {
		return err
	}
	var w wireHistogram
	f := fields{b: b}
	for f.next() {
		switch {
		case f.num <= 7:
			w.head(&f)
		case f.num <= 13:
			w.buckets(&f)
		default:
			w.tail(&f, v2)
		}
	}
	if f.bad {
		return fmt.Errorf("%w: histogram", ErrMalformed)
	}
	d.batch.Hist = append(d.batch.Hist, w.sample())
	return nil
}

func (w *wireHistogram) head(f *fields) {
	switch {
	case f.num == 1 && f.is(typeVarint):
		w.count, w.isFloat = f.v, false
	case f.num == 2 && f.is(typeFixed64):
		w.count, w.isFloat = f.v, true
	case f.num == 3 && f.is(typeFixed64):
		w.sum = math.Float64frombits(f.v)
	case f.num == 4 && f.is(typeVarint):
		w.schema = int32(uint32(f.v)>>1) ^ -int32(f.v&1)
	case f.num == 5 && f.is(typeFixed64):
		w.zeroWidth = math.Float64frombits(f.v)
	case f.num == 6 && f.is(typeVarint):
		w.zero, w.zeroFloat = f.v, false
	case f.num == 7 && f.is(typeFixed64):
		w.zero, w.zeroFloat = f.v, true
	}
}

func (w *wireHistogram) buckets(f *fields) {
	switch f.num {
	case 8:
		w.nSpans = appendSpan(w.nSpans, f)
	case 9:
		w.nDeltas = appendDeltas(w.nDeltas, f)
	case 10:
		w.nCounts = appendDoubles(w.nCounts, f)
	case 11:
		w.pSpans = appendSpan(w.pSpans, f)
	case 12:
		w.pDeltas = appendDeltas(w.pDeltas, f)
	case 13:
		w.pCounts = appendDoubles(w.pCounts, f)
	}
}

func (w *wireHistogram) tail(f *fields, v2 bool) {
	switch {
	case f.num == 14 && f.is(typeVarint):
		w.hint = f.v
	case f.num == 15 && f.is(typeVarint):
		w.t = int64(f.v)
	case f.num == 16:
		w.custom = appendDoubles(w.custom, f)
	case f.num == 17 && v2 && f.is(typeVarint):
		w.st = int64(f.v)
	}
}

func (w *wireHistogram) sample() model.HistogramSample {
	hint := histogram.UnknownCounterReset
	if w.hint <= uint64(histogram.GaugeType) {
		hint = histogram.CounterResetHint(w.hint)
	}
	s := model.HistogramSample{T: w.t, ST: w.st}
	if !w.isFloat {
		s.H = &histogram.Histogram{
			CounterResetHint: hint, Schema: w.schema, ZeroThreshold: w.zeroWidth, Count: w.count, Sum: w.sum,
			PositiveSpans: w.pSpans, NegativeSpans: w.nSpans, PositiveBuckets: w.pDeltas, NegativeBuckets: w.nDeltas,
			CustomValues: w.custom,
		}
		if !w.zeroFloat {
			s.H.ZeroCount = w.zero
		}
		return s
	}
	s.FH = &histogram.FloatHistogram{
		CounterResetHint: hint, Schema: w.schema, ZeroThreshold: w.zeroWidth, Count: math.Float64frombits(w.count), Sum: w.sum,
		PositiveSpans: w.pSpans, NegativeSpans: w.nSpans, PositiveBuckets: w.pCounts, NegativeBuckets: w.nCounts,
		CustomValues: w.custom,
	}
	if w.zeroFloat {
		s.FH.ZeroCount = math.Float64frombits(w.zero)
	}
	return s
}

func appendSpan(dst []histogram.Span, f *fields) []histogram.Span {
	if !f.is(typeBytes) {
		return dst
	}
	var s histogram.Span
	g := fields{b: f.data}
	for g.next() {
		switch {
		case g.num == 1 && g.is(typeVarint):
			s.Offset = int32(uint32(g.v)>>1) ^ -int32(g.v&1)
		case g.num == 2 && g.is(typeVarint):
			s.Length = uint32(g.v)
		}
	}
	f.bad = f.bad || g.bad
	return append(dst, s)
}

// appendDeltas reads sint64s, packed or one a field.
func appendDeltas(dst []int64, f *fields) []int64 {
	if f.typ == typeVarint {
		return append(dst, zigzag(f.v))
	}
	if !f.is(typeBytes) {
		return dst
	}
	for i := 0; i < len(f.data); {
		v, next := uvarint(f.data, i)
		if next < 0 {
			f.bad = true
			break
		}
		dst, i = append(dst, zigzag(v)), next
	}
	return dst
}

// appendDoubles reads doubles, packed or one a field.
func appendDoubles(dst []float64, f *fields) []float64 {
	if f.typ == typeFixed64 {
		return append(dst, math.Float64frombits(f.v))
	}
	if !f.is(typeBytes) {
		return dst
	}
	if len(f.data)%8 != 0 {
		f.bad = true
		return dst
	}
	for b := f.data; len(b) > 0; b = b[8:] {
		dst = append(dst, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return dst
}

// checkHistograms takes broken histograms out of the series that was just ended, the last of
// the batch, and notes whether something of it was refused.
func (d *decoder) checkHistograms(s *model.BatchSeries) {
	hs := d.batch.Hist
	keep := s.HFrom
	for i := s.HFrom; i < s.HTo; i++ {
		if err := validate(&hs[i]); err != nil {
			d.note(s.Key, fmt.Errorf("%w: histogram at %d: %w", model.ErrBadSample, hs[i].T, err))
			continue
		}
		hs[keep] = hs[i]
		keep++
	}
	clear(hs[keep:])
	d.batch.Hist = hs[:keep]
	last := len(d.batch.Series) - 1
	d.batch.Series[last].HTo = keep
	if s.From == s.To && s.EFrom == s.ETo && keep == s.HFrom {
		d.batch.Series = d.batch.Series[:last]
	} else if d.noted {
		d.partly = append(d.partly, last)
	}
}

func validate(h *model.HistogramSample) error {
	if h.H != nil {
		return h.H.Validate()
	}
	return h.FH.Validate()
}
