package model

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
)

// Batch is a set of samples on its way into the engine, grouped by series, in
// flat columns that are reused from request to request. All byte slices in it
// may alias the request's body: the engine copies what outlives Append.
//
// The same series may appear more than once; later entries are later writes.
type Batch struct {
	Series []BatchSeries
	// T and V are the float samples of all series: milliseconds since 1970, and values.
	T []int64
	V []float64
	// ST holds start timestamps beside T (0: none), or is empty when no sample has one.
	ST        []int64
	Hist      []HistogramSample
	Exemplars []Exemplar
	Metadata  []Metadata
}

// BatchSeries is one series of a Batch: its key and its half-open ranges in the columns.
type BatchSeries struct {
	Key        []byte // label bytes as on the 1.0 wire; need not be canonical
	From, To   int    // in T, V and ST
	HFrom, HTo int    // in Hist
	EFrom, ETo int    // in Exemplars
}

// HistogramSample is a native histogram; exactly one of H and FH is set. A stale
// marker is a histogram whose Sum is the stale NaN.
type HistogramSample struct {
	T, ST int64 // milliseconds; ST is 0 when not given
	H     *histogram.Histogram
	FH    *histogram.FloatHistogram
}

// Exemplar is a sample of the traffic behind a series' value.
type Exemplar struct {
	T     int64 // milliseconds
	Value float64
	// Labels is the exemplar's label set as a key (see AppendKeyLabel); may be
	// empty. Names need not be sorted by the sender.
	Labels []byte
}

// Metadata describes a metric family.
type Metadata struct {
	Metric string // the family's name
	Type   string // counter, gauge, histogram, gaugehistogram, summary, info, stateset, unknown
	Help   string
	Unit   string
}

// Reset empties the batch and keeps its memory. Pointers are cleared, so that a
// pooled batch holds no request's memory alive.
func (b *Batch) Reset() {
	clear(b.Series)
	clear(b.Hist)
	clear(b.Exemplars)
	clear(b.Metadata)
	b.Series, b.T, b.V, b.ST = b.Series[:0], b.T[:0], b.V[:0], b.ST[:0]
	b.Hist, b.Exemplars, b.Metadata = b.Hist[:0], b.Exemplars[:0], b.Metadata[:0]
}

// AppendResult tells what became of a batch. What is counted as written is durable.
type AppendResult struct {
	Samples, Histograms, Exemplars int // written, duplicates included
	// Rejected lists the series entries of which samples were not written, each once and in
	// order; the rest of the batch is stored all the same. Exemplars may be left out silently.
	Rejected []Rejection
	// Applied is where in the logs the batch lies: a reader that has come to there sees it.
	Applied Applied
}

// Applied says up to which log entry each shard has been applied.
type Applied []ShardIndex

// ShardIndex is an index of one shard's log.
type ShardIndex struct {
	Shard int
	Index uint64
}

// Append writes it as text: "shard:index" joined by commas.
func (a Applied) Append(dst []byte) []byte {
	for i, x := range a {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, int64(x.Shard), 10)
		dst = strconv.AppendUint(append(dst, ':'), x.Index, 10)
	}
	return dst
}

// ParseApplied is the inverse of Append.
func ParseApplied(s string) (a Applied, err error) {
	for part := range strings.SplitSeq(s, ",") {
		shard, index, ok := strings.Cut(part, ":")
		k, kerr := strconv.ParseUint(shard, 10, 16)
		i, ierr := strconv.ParseUint(index, 10, 64)
		if !ok || kerr != nil || ierr != nil || len(a) > 1024 {
			return nil, fmt.Errorf("%q is not a list of shard:index", s)
		}
		a = append(a, ShardIndex{int(k), i})
	}
	return a, nil
}

// Rejection says why something of Batch.Series[Series] was not written.
type Rejection struct {
	Series int
	Err    error // wraps ErrBadLabels, ErrBadSample, ErrTooOld, ErrTooNew or ErrSeriesLimit
}
