package shard

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/model/histogram"

	"github.com/strandline-db/strandline/shard/model"
)

// Blobs: a native histogram or an exemplar as bytes, bit for bit.
//
//	histogram: flags (1: float, 2: custom values), counter reset hint, varint schema,
//	           zero threshold, sum (8 bytes each), then zero count, count: uvarint or 8 bytes,
//	           positive and negative spans (uvarint n, n times varint offset, uvarint length),
//	           positive and negative buckets (uvarint n, n times varint delta or 8 bytes),
//	           custom values if flagged (uvarint n, n times 8 bytes)
//	exemplar:  value (8 bytes), labels as a key
const (
	blobFloat  = 1
	blobCustom = 2
)

func f64(dst []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v))
}

// AppendHistogram encodes h, without its times.
func AppendHistogram(dst []byte, h *model.HistogramSample) []byte {
	if h.FH != nil {
		return appendFloatHistogram(dst, h.FH)
	}
	x := h.H
	dst = blobHead(dst, 0, byte(x.CounterResetHint), x.Schema, x.ZeroThreshold, x.Sum, x.CustomValues)
	dst = binary.AppendUvarint(dst, x.ZeroCount)
	dst = binary.AppendUvarint(dst, x.Count)
	dst = appendSpans(appendSpans(dst, x.PositiveSpans), x.NegativeSpans)
	for _, bs := range [][]int64{x.PositiveBuckets, x.NegativeBuckets} {
		dst = binary.AppendUvarint(dst, uint64(len(bs)))
		for _, b := range bs {
			dst = binary.AppendVarint(dst, b)
		}
	}
	return appendCustom(dst, x.CustomValues)
}

func appendFloatHistogram(dst []byte, x *histogram.FloatHistogram) []byte {
	dst = blobHead(dst, blobFloat, byte(x.CounterResetHint), x.Schema, x.ZeroThreshold, x.Sum, x.CustomValues)
	dst = f64(f64(dst, x.ZeroCount), x.Count)
	dst = appendSpans(appendSpans(dst, x.PositiveSpans), x.NegativeSpans)
	for _, bs := range [][]float64{x.PositiveBuckets, x.NegativeBuckets} {
		dst = binary.AppendUvarint(dst, uint64(len(bs)))
		for _, b := range bs {
			dst = f64(dst, b)
		}
	}
	return appendCustom(dst, x.CustomValues)
}

func blobHead(dst []byte, flags, hint byte, schema int32, zero, sum float64, custom []float64) []byte {
	if custom != nil {
		flags |= blobCustom
	}
	dst = append(dst, flags, hint)
	dst = binary.AppendVarint(dst, int64(schema))
	return f64(f64(dst, zero), sum)
}

func appendSpans(dst []byte, ss []histogram.Span) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ss)))
	for _, s := range ss {
		dst = binary.AppendVarint(dst, int64(s.Offset))
		dst = binary.AppendUvarint(dst, uint64(s.Length))
	}
	return dst
}

func appendCustom(dst []byte, vs []float64) []byte {
	if vs == nil {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(vs)))
	for _, v := range vs {
		dst = f64(dst, v)
	}
	return dst
}

// DecodeHistogram is the inverse of AppendHistogram.
func DecodeHistogram(b []byte, t, st int64) (model.HistogramSample, error) {
	r := &reader{b: b}
	out := model.HistogramSample{T: t, ST: st}
	flags, hint := r.byte(), histogram.CounterResetHint(r.byte())
	schema := int32(r.varint())
	zero, sum := r.float(), r.float()
	if flags&blobFloat != 0 {
		h := &histogram.FloatHistogram{CounterResetHint: hint, Schema: schema, ZeroThreshold: zero, Sum: sum}
		h.ZeroCount, h.Count = r.float(), r.float()
		h.PositiveSpans, h.NegativeSpans = r.spans(), r.spans()
		h.PositiveBuckets, h.NegativeBuckets = r.floats(), r.floats()
		if flags&blobCustom != 0 {
			h.CustomValues = r.floats()
		}
		out.FH = h
	} else {
		h := &histogram.Histogram{CounterResetHint: hint, Schema: schema, ZeroThreshold: zero, Sum: sum}
		h.ZeroCount, h.Count = r.uvarint(), r.uvarint()
		h.PositiveSpans, h.NegativeSpans = r.spans(), r.spans()
		h.PositiveBuckets, h.NegativeBuckets = r.ints(), r.ints()
		if flags&blobCustom != 0 {
			h.CustomValues = r.floats()
		}
		out.H = h
	}
	if r.err == nil && len(r.b) != 0 {
		r.fail()
	}
	if r.err != nil {
		return out, fmt.Errorf("histogram: %w", r.err)
	}
	return out, nil
}

// count reads an element count and refuses one that the rest can't hold.
func (r *reader) count(each int) int {
	n := r.uvarint()
	if n > uint64(len(r.b)/each) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) spans() []histogram.Span {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	ss := make([]histogram.Span, n)
	for i := range ss {
		ss[i] = histogram.Span{Offset: int32(r.varint()), Length: uint32(r.uvarint())}
	}
	return ss
}

func (r *reader) ints() []int64 {
	n := r.count(1)
	if n == 0 {
		return nil
	}
	vs := make([]int64, n)
	for i := range vs {
		vs[i] = r.varint()
	}
	return vs
}

func (r *reader) floats() []float64 {
	n := r.count(8)
	if n == 0 {
		return nil
	}
	vs := make([]float64, n)
	for i := range vs {
		vs[i] = r.float()
	}
	return vs
}

func appendExemplar(dst []byte, e *model.Exemplar) []byte {
	return append(f64(dst, e.Value), e.Labels...)
}

func decodeExemplar(b []byte, t int64) (model.Exemplar, error) {
	r := &reader{b: b}
	e := model.Exemplar{T: t, Value: r.float()}
	e.Labels = append([]byte(nil), r.b...)
	return e, r.err
}
