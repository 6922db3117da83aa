package query

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
)

// PairReader shows the series of a pair of senders as one; see NewPairReader.
type PairReader struct {
	model.Reader
	label  string
	shared *pairShared
}

// pairShared is what readers of the same pairs share.
type pairShared struct {
	pool              sync.Pool // *pairScratch
	dropped, switches atomic.Uint64
}

type pairScratch struct {
	chooser pair.Chooser
	parts   []*model.Columns
	merged  model.Columns
}

// NewPairReader returns a reader of r in which series that differ in one label only, by
// which a pair of senders is told apart, are one series without the label, its samples
// chosen by package pair. A request whose matchers name the label sees the series as
// they are stored.
func NewPairReader(r model.Reader, label string) *PairReader {
	return &PairReader{r, label, &pairShared{pool: sync.Pool{New: func() any { return &pairScratch{} }}}}
}

// Dropped counts the samples that reads decoded and did not show, since another sender's
// were chosen. A sample counts each time that it is read.
func (p *PairReader) Dropped() uint64 { return p.shared.dropped.Load() }

// Switches counts how often samples that were read went on with another sender's than the
// one before.
func (p *PairReader) Switches() uint64 { return p.shared.switches.Load() }

// over is the same for another reader.
func (p *PairReader) over(r model.Reader) *PairReader { return &PairReader{r, p.label, p.shared} }

// raw tells whether a request asks for the stored series.
func (p *PairReader) raw(req *model.SelectRequest) bool {
	return slices.ContainsFunc(req.Matchers, func(m *labels.Matcher) bool { return m.Name == p.label })
}

// widen extends a time range to whole buckets, for which the choice is made.
func widen(minT, maxT int64) (int64, int64) {
	const far = math.MaxInt64 - pair.Bucket
	if minT > -far {
		minT -= ((minT % pair.Bucket) + pair.Bucket) % pair.Bucket
	}
	if maxT < far {
		maxT += pair.Bucket - 1 - ((maxT%pair.Bucket)+pair.Bucket)%pair.Bucket
	}
	return minT, maxT
}

// SelectAll implements model.Reader.
func (p *PairReader) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	ask, paired := make([]*model.SelectRequest, len(reqs)), make([]bool, len(reqs))
	for k, req := range reqs {
		if ask[k] = req; !p.raw(req) {
			twice := *req
			twice.MaxSeries *= 2
			ask[k] = &twice
		}
	}
	var sels []*model.Selection
	for again := true; again; {
		var err error
		if sels, err = p.Reader.SelectAll(ctx, ask); err != nil {
			return nil, err
		}
		if again = p.findPairs(sels, reqs, ask, paired); again {
			model.CloseAll(sels) // all once more, since they are to be of one instant
		}
	}
	for k, req := range reqs {
		if paired[k] {
			sels[k] = p.join(sels[k], req)
		}
		if err := req.Allows(len(sels[k].Series)); err != nil {
			model.CloseAll(sels)
			return nil, err
		}
	}
	return sels, nil
}

// findPairs notes which selections are the first to show a pair's series, and widens what is
// asked for these. It tells whether there are any: a pair may come from one look to the next.
func (p *PairReader) findPairs(sels []*model.Selection, reqs, ask []*model.SelectRequest, paired []bool) (found bool) {
	for k, sel := range sels {
		if !paired[k] && !p.raw(reqs[k]) && slices.ContainsFunc(sel.Series, func(s model.Series) bool { return s.Labels().Has(p.label) }) {
			ask[k].MinT, ask[k].MaxT = widen(reqs[k].MinT, reqs[k].MaxT)
			paired[k], found = true, true
		}
	}
	return found
}

// join makes of a selection over whole buckets the one that was asked for.
func (p *PairReader) join(sel *model.Selection, req *model.SelectRequest) *model.Selection {
	out := &model.Selection{Release: sel.Close}
	for _, s := range p.group(sel.Series) {
		s.minT, s.maxT = req.MinT, req.MaxT
		out.Series = append(out.Series, s)
	}
	return out
}

// group joins the senders' series, sorted by the labels that they share.
func (p *PairReader) group(list []model.Series) []*pairSeries {
	all := make([]*pairSeries, len(list))
	b := labels.NewBuilder(labels.EmptyLabels())
	for i, s := range list {
		b.Reset(s.Labels())
		all[i] = &pairSeries{p: p, labels: b.Del(p.label).Labels(), of: []model.Series{s}}
	}
	// Stable: of equal labels the senders stay in order of their own label.
	slices.SortStableFunc(all, func(a, b *pairSeries) int { return labels.Compare(a.labels, b.labels) })
	out := all[:0]
	for _, s := range all {
		if n := len(out); n > 0 && labels.Equal(out[n-1].labels, s.labels) {
			out[n-1].of = append(out[n-1].of, s.of...)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// pairSeries is one series of one or more senders.
type pairSeries struct {
	p          *PairReader
	labels     labels.Labels
	of         []model.Series
	minT, maxT int64
}

// Labels implements model.Series.
func (s *pairSeries) Labels() labels.Labels { return s.labels }

// Read implements model.Series.
func (s *pairSeries) Read(dst *model.Columns) error {
	x := s.p.shared.pool.Get().(*pairScratch)
	defer s.p.shared.pool.Put(x)
	for len(x.parts) < len(s.of) {
		x.parts = append(x.parts, &model.Columns{})
	}
	for i, of := range s.of {
		x.parts[i].Reset()
		if err := of.Read(x.parts[i]); err != nil {
			return err
		}
	}
	if len(s.of) == 1 {
		appendRange(dst, x.parts[0], s.minT, s.maxT)
		return nil
	}
	x.merged.Reset()
	o := x.chooser.Merge(&x.merged, x.parts[:len(s.of)])
	s.p.shared.dropped.Add(uint64(o.Dropped))
	s.p.shared.switches.Add(uint64(o.Switches))
	appendRange(dst, &x.merged, s.minT, s.maxT)
	return nil
}

// appendRange appends what of src lies between two times, both inclusive.
func appendRange(dst, src *model.Columns, minT, maxT int64) {
	i, _ := slices.BinarySearch(src.T, minT)
	k := len(src.T)
	if maxT < math.MaxInt64 {
		k, _ = slices.BinarySearch(src.T, maxT+1)
	}
	if k > i && (len(src.ST) > 0 || len(dst.ST) > 0) {
		dst.ST = append(dst.ST, make([]int64, len(dst.T)-len(dst.ST))...)
		if len(src.ST) > 0 {
			dst.ST = append(dst.ST, src.ST[i:k]...)
		} else {
			dst.ST = append(dst.ST, make([]int64, k-i)...)
		}
	}
	if k > i {
		dst.T, dst.V = append(dst.T, src.T[i:k]...), append(dst.V, src.V[i:k]...)
	}
	for _, h := range src.Hist {
		if h.T >= minT && h.T <= maxT {
			dst.Hist = append(dst.Hist, h)
		}
	}
}

// LabelNames implements model.Reader.
func (p *PairReader) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	names, err := p.Reader.LabelNames(ctx, req)
	if err != nil || p.raw(req) {
		return names, err
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == p.label }), nil
}

// Exemplars implements model.Reader: those of all senders.
func (p *PairReader) Exemplars(ctx context.Context, req *model.SelectRequest) ([]model.SeriesExemplars, error) {
	list, err := p.Reader.Exemplars(ctx, req)
	if err != nil || p.raw(req) {
		return list, err
	}
	b := labels.NewBuilder(labels.EmptyLabels())
	for i := range list {
		b.Reset(list[i].Labels)
		list[i].Labels = b.Del(p.label).Labels()
	}
	slices.SortStableFunc(list, func(a, b model.SeriesExemplars) int { return labels.Compare(a.Labels, b.Labels) })
	var out []model.SeriesExemplars
	for _, s := range list {
		if n := len(out); n > 0 && labels.Equal(out[n-1].Labels, s.Labels) {
			out[n-1].Exemplars = slices.Concat(out[n-1].Exemplars, s.Exemplars)
			slices.SortStableFunc(out[n-1].Exemplars, func(a, b model.Exemplar) int { return int(max(-1, min(1, a.T-b.T))) })
		} else {
			out = append(out, s)
		}
	}
	return out, nil
}
