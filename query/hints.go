package query

import (
	"context"
	"sort"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/strandline-db/strandline/shard/model"
)

// Counter reset hints are worked out when samples are read, not when they are
// stored: a late sample may land between two others and change which of them
// follows a reset. Each histogram is compared with the sample before it. For the
// first of a range that one lies outside of the selection, and is looked up by a
// second selection, made once a selector and only if it has native histograms.

// priorWindow is how far back the sample before a range is looked for; beyond
// it the hint is "unknown", which is always correct.
const priorWindow = 5 * time.Minute

// prior finds the last sample before a selection's range.
type prior struct {
	q    *querier
	ctx  context.Context // of the Select it belongs to
	req  *model.SelectRequest
	once sync.Once
	list []model.Series
	err  error
}

// last returns the histogram that precedes the range in the series with these
// labels, nil if there is none or the last sample is a float.
func (p *prior) last(ls labels.Labels) (*histogram.FloatHistogram, error) {
	p.once.Do(p.open)
	i := sort.Search(len(p.list), func(i int) bool { return labels.Compare(p.list[i].Labels(), ls) >= 0 })
	if p.err != nil || i == len(p.list) || !labels.Equal(p.list[i].Labels(), ls) {
		return nil, p.err
	}
	var c model.Columns
	if err := p.list[i].Read(&c); err != nil || len(c.Hist) == 0 {
		return nil, err
	}
	h := &c.Hist[len(c.Hist)-1]
	if len(c.T) > 0 && c.T[len(c.T)-1] > h.T {
		return nil, nil
	}
	return comparableForm(h, nil), nil
}

func (p *prior) open() {
	req := *p.req
	req.MinT, req.MaxT = p.req.MinT-priorWindow.Milliseconds(), p.req.MinT-1
	if req.MaxT > p.req.MinT || req.MinT > req.MaxT {
		return // the range begins at the dawn of time
	}
	sel, err := model.Select(p.ctx, p.q.r, &req)
	if err != nil {
		p.err = err
		return
	}
	p.q.pin(sel)
	p.list = sel.Series
}

// setHints sets the counter reset hints of one series' histograms.
func (it *iterator) setHints() error {
	c := it.cols
	if len(c.Hist) == 0 {
		return nil
	}
	var prev *histogram.FloatHistogram
	if len(c.T) == 0 || c.T[0] > c.Hist[0].T {
		var err error
		if prev, err = it.src.prior.last(it.src.Labels()); err != nil {
			return err
		}
	}
	fi := 0
	for i := range c.Hist {
		h := &c.Hist[i]
		for ; fi < len(c.T) && c.T[fi] < h.T; fi++ {
			prev = nil
		}
		cur := comparableForm(h, it.scratch[i%2])
		if cur != nil {
			it.scratch[i%2] = cur
			setHint(h, resetHint(h, cur, prev))
		}
		prev = cur
	}
	return nil
}

// comparableForm returns h as a float histogram without a hint, in dst's memory if
// it is given; nil for what a counter can't be compared with: gauges and stale markers.
func comparableForm(h *model.HistogramSample, dst *histogram.FloatHistogram) *histogram.FloatHistogram {
	if hintOf(h) == histogram.GaugeType || value.IsStaleNaN(sumOf(h)) {
		return nil
	}
	if dst == nil {
		dst = &histogram.FloatHistogram{}
	}
	if h.H != nil {
		dst = h.H.ToFloat(dst)
	} else {
		h.FH.CopyTo(dst)
	}
	dst.CounterResetHint = histogram.UnknownCounterReset
	return dst
}

// resetHint compares a counter with the one before it. A reset that the sender
// declared stays one. One found here reads as "unknown", as Prometheus' storage
// has it (prometheus issue 15346): the engine then looks for itself, and
// aggregations don't warn of every restart of a process.
func resetHint(h *model.HistogramSample, cur, prev *histogram.FloatHistogram) histogram.CounterResetHint {
	switch {
	case hintOf(h) == histogram.CounterReset:
		return histogram.CounterReset
	case prev == nil || cur.DetectReset(prev):
		return histogram.UnknownCounterReset
	}
	return histogram.NotCounterReset
}

func hintOf(h *model.HistogramSample) histogram.CounterResetHint {
	if h.H != nil {
		return h.H.CounterResetHint
	}
	return h.FH.CounterResetHint
}

func sumOf(h *model.HistogramSample) float64 {
	if h.H != nil {
		return h.H.Sum
	}
	return h.FH.Sum
}

// setHint may write to h: what Read appends belongs to the reader.
func setHint(h *model.HistogramSample, hint histogram.CounterResetHint) {
	if h.H != nil {
		h.H.CounterResetHint = hint
	} else {
		h.FH.CounterResetHint = hint
	}
}
