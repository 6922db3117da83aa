package model

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// Reader is the read contract between the storage and whoever queries it. All
// methods are safe for concurrent use and stop early when ctx ends.
type Reader interface {
	// SelectAll returns, for each request, the series that match and may have samples in
	// the range, sorted by labels. What lies in one shard is seen by all of them at one
	// instant. The caller closes the selections when it has read them.
	SelectAll(ctx context.Context, reqs []*SelectRequest) ([]*Selection, error)
	// LabelNames returns the sorted label names of the matching series.
	LabelNames(ctx context.Context, req *SelectRequest) ([]string, error)
	// LabelValues returns the sorted values of one label among the matching series.
	LabelValues(ctx context.Context, name string, req *SelectRequest) ([]string, error)
	// Exemplars returns the matching series that have exemplars in the range, sorted by labels.
	Exemplars(ctx context.Context, req *SelectRequest) ([]SeriesExemplars, error)
	// Metadata returns what is known of the metric, or of all metrics when metric is "".
	Metadata(ctx context.Context, metric string) ([]Metadata, error)
}

// Select is SelectAll for one request.
func Select(ctx context.Context, r Reader, req *SelectRequest) (*Selection, error) {
	all, err := r.SelectAll(ctx, []*SelectRequest{req})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// CloseAll closes those of the selections that are not nil.
func CloseAll(sels []*Selection) {
	for _, s := range sels {
		if s != nil {
			s.Close()
		}
	}
}

// SelectRequest names series and a time range, both ends inclusive, in milliseconds.
type SelectRequest struct {
	MinT, MaxT int64
	// Matchers must all hold. Empty means every series.
	Matchers []*labels.Matcher
	// MaxSeries is the most series the answer may have; more is a *LimitError. 0: no limit.
	MaxSeries int
}

// Allows fails with TooManySeries if an answer may not have so many series.
func (r *SelectRequest) Allows(series int) error {
	if r.MaxSeries > 0 && series > r.MaxSeries {
		return TooManySeries(r.MaxSeries)
	}
	return nil
}

// TooManySeries is the error of an answer that has more than MaxSeries.
func TooManySeries(limit int) error {
	return &LimitError{What: "series", Limit: int64(limit), Flag: "query-max-series"}
}

// Equal tells whether another request asks for the same, with its matchers in the same order.
func (r *SelectRequest) Equal(x *SelectRequest) bool {
	return r.MinT == x.MinT && r.MaxT == x.MaxT && r.MaxSeries == x.MaxSeries &&
		slices.EqualFunc(r.Matchers, x.Matchers, func(a, b *labels.Matcher) bool {
			return a.Type == b.Type && a.Name == b.Name && a.Value == b.Value
		})
}

// Selection is the answer to a Select: it pins what its series read from.
type Selection struct {
	Series []Series
	// Release, if set, unpins. It is called once, by Close.
	Release func()
}

// Close releases what the selection pins; its series must not be read after. It
// may be called more than once.
func (s *Selection) Close() {
	if s.Release != nil {
		s.Release()
		s.Release = nil
	}
	s.Series = nil
}

// Series is one selected series. Different series of a selection may be read
// concurrently, one series by one goroutine at a time.
type Series interface {
	// Labels returns the series' labels, immutable.
	Labels() labels.Labels
	// Read appends the series' samples in the selection's range to dst: in order of
	// time, one a timestamp. dst is the caller's; nothing in it aliases storage.
	Read(dst *Columns) error
}

// Columns holds samples of one series: floats and histograms, each in order of
// time. No timestamp is in both.
type Columns struct {
	T []int64 // milliseconds
	V []float64
	// ST holds start timestamps beside T (0: none); empty when the series has none.
	ST   []int64
	Hist []HistogramSample
}

// Reset empties the columns and keeps their memory.
func (c *Columns) Reset() {
	clear(c.Hist)
	c.T, c.V, c.ST, c.Hist = c.T[:0], c.V[:0], c.ST[:0], c.Hist[:0]
}

// SeriesExemplars are the exemplars of one series, in order of time.
type SeriesExemplars struct {
	Labels    labels.Labels
	Exemplars []Exemplar
}

// Float returns the sample as a float histogram, converting if needed.
func (h *HistogramSample) Float() *histogram.FloatHistogram {
	if h.FH != nil {
		return h.FH
	}
	return h.H.ToFloat(nil)
}
