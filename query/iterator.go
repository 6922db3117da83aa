package query

import (
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/strandline-db/strandline/shard/model"
)

// series is a selected series as Prometheus' engine wants it.
type series struct {
	model.Series
	q     *querier
	prior *prior
}

// Iterator implements storage.Series. It takes over the memory of it if that
// was an iterator of the same querier.
func (s *series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	own, ok := it.(*iterator)
	if !ok || own.q != s.q {
		own = s.q.newIterator()
	}
	own.start(s)
	return own
}

// iterator walks the columns of one series: floats and histograms merged by time.
// Samples before the current one are those with an index below fi and hi.
type iterator struct {
	q    *querier
	src  *series
	cols *model.Columns
	read bool
	held int64 // samples counted against the querier's limit
	err  error

	scratch [2]*histogram.FloatHistogram // of setHints

	fi, hi int // next float, next histogram
	cur    chunkenc.ValueType
	t      int64
}

var _ chunkenc.Iterator = (*iterator)(nil)

func (it *iterator) start(src *series) {
	it.src, it.read, it.err = src, false, nil
	it.fi, it.hi, it.cur, it.t = 0, 0, chunkenc.ValNone, math.MinInt64
}

// load decodes the series on first use.
func (it *iterator) load() bool {
	if it.read {
		return it.err == nil
	}
	it.read = true
	it.q.release(it.held)
	it.held = 0
	it.cols.Reset()
	if it.err = it.src.Read(it.cols); it.err == nil {
		it.held = int64(len(it.cols.T) + len(it.cols.Hist))
		it.err = it.q.hold(it.held)
	}
	if it.err == nil {
		it.err = it.setHints()
	}
	return it.err == nil
}

// Next implements chunkenc.Iterator.
func (it *iterator) Next() chunkenc.ValueType {
	if !it.load() {
		it.cur = chunkenc.ValNone
		return it.cur
	}
	c := it.cols
	switch {
	case it.fi < len(c.T) && (it.hi >= len(c.Hist) || c.T[it.fi] <= c.Hist[it.hi].T):
		it.t, it.cur = c.T[it.fi], chunkenc.ValFloat
		it.fi++
	case it.hi < len(c.Hist):
		it.t, it.cur = c.Hist[it.hi].T, chunkenc.ValFloatHistogram
		if c.Hist[it.hi].H != nil {
			it.cur = chunkenc.ValHistogram
		}
		it.hi++
	default:
		it.cur = chunkenc.ValNone
	}
	return it.cur
}

// Seek implements chunkenc.Iterator by binary search over what is left.
func (it *iterator) Seek(t int64) chunkenc.ValueType {
	if it.cur != chunkenc.ValNone && it.t >= t {
		return it.cur
	}
	if it.load() {
		fs, hs := it.cols.T[it.fi:], it.cols.Hist[it.hi:]
		it.fi += sort.Search(len(fs), func(i int) bool { return fs[i] >= t })
		it.hi += sort.Search(len(hs), func(i int) bool { return hs[i].T >= t })
	}
	return it.Next()
}

// At implements chunkenc.Iterator.
func (it *iterator) At() (int64, float64) {
	return it.t, it.cols.V[it.fi-1]
}

// AtHistogram implements chunkenc.Iterator. The result is a copy.
func (it *iterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	src := it.cols.Hist[it.hi-1].H
	if h == nil {
		return it.t, src.Copy()
	}
	src.CopyTo(h)
	return it.t, h
}

// AtFloatHistogram implements chunkenc.Iterator. The result is a copy.
func (it *iterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	src := &it.cols.Hist[it.hi-1]
	if src.H != nil {
		return it.t, src.H.ToFloat(fh)
	}
	if fh == nil {
		return it.t, src.FH.Copy()
	}
	src.FH.CopyTo(fh)
	return it.t, fh
}

// AtT implements chunkenc.Iterator.
func (it *iterator) AtT() int64 { return it.t }

// AtST implements chunkenc.Iterator.
func (it *iterator) AtST() int64 {
	if it.cur != chunkenc.ValFloat {
		return it.cols.Hist[it.hi-1].ST
	}
	if len(it.cols.ST) == 0 {
		return 0
	}
	return it.cols.ST[it.fi-1]
}

// Err implements chunkenc.Iterator.
func (it *iterator) Err() error { return it.err }
