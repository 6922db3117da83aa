package querytest

import (
	"context"
	"slices"
	"sort"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/strandline-db/strandline/shard/model"
)

// Store keeps samples in memory. The zero value is not usable; see New.
type Store struct {
	mu struct {
		sync.Mutex
		series map[string]*memSeries // by key
		meta   []model.Metadata
		err    error
		open   int // selections not yet closed
		feeds  []*feed
	}
}

type memSeries struct {
	lbls      labels.Labels
	floats    map[int64]float
	hists     map[int64]model.HistogramSample
	exemplars []model.Exemplar
}

type float struct {
	v  float64
	st int64
}

var _ model.Reader = (*Store)(nil)

// New returns an empty store.
func New() *Store {
	s := &Store{}
	s.mu.series = map[string]*memSeries{}
	return s
}

// SetError makes every read fail with err until it is set to nil.
func (s *Store) SetError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.err = err
}

// Open returns how many selections are not closed.
func (s *Store) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.open
}

// Append stores a batch; the later of two samples at one timestamp wins.
func (s *Store) Append(_ context.Context, b *model.Batch) (model.AppendResult, error) {
	res, wakes := s.append(b)
	for _, wake := range wakes {
		wake()
	}
	return res, nil
}

func (s *Store) append(b *model.Batch) (res model.AppendResult, wakes []func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, bs := range b.Series {
		key, err := model.CanonicalKey(nil, bs.Key)
		if err != nil {
			res.Rejected = append(res.Rejected, model.Rejection{Series: i, Err: err})
			continue
		}
		m := s.mu.series[string(key)]
		if m == nil {
			m = &memSeries{lbls: model.KeyLabels(key), floats: map[int64]float{}, hists: map[int64]model.HistogramSample{}}
			s.mu.series[string(key)] = m
		}
		m.add(b, bs)
		wakes = append(wakes, s.deliver(m, b, bs)...)
		res.Samples += bs.To - bs.From
		res.Histograms += bs.HTo - bs.HFrom
		res.Exemplars += bs.ETo - bs.EFrom
	}
	s.mu.meta = append(s.mu.meta, b.Metadata...)
	return res, wakes
}

func (m *memSeries) add(b *model.Batch, bs model.BatchSeries) {
	for j := bs.From; j < bs.To; j++ {
		f := float{v: b.V[j]}
		if len(b.ST) > 0 {
			f.st = b.ST[j]
		}
		delete(m.hists, b.T[j])
		m.floats[b.T[j]] = f
	}
	for _, h := range b.Hist[bs.HFrom:bs.HTo] {
		delete(m.floats, h.T)
		m.hists[h.T] = copyHist(h)
	}
	for _, e := range b.Exemplars[bs.EFrom:bs.ETo] {
		e.Labels = slices.Clone(e.Labels)
		m.exemplars = append(m.exemplars, e)
	}
	sort.SliceStable(m.exemplars, func(i, j int) bool { return m.exemplars[i].T < m.exemplars[j].T })
}

func copyHist(h model.HistogramSample) model.HistogramSample {
	if h.H != nil {
		h.H = h.H.Copy()
	} else {
		h.FH = h.FH.Copy()
	}
	return h
}

// match returns the matching series that have a sample in the range, sorted.
func (s *Store) match(ctx context.Context, req *model.SelectRequest) ([]model.Series, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.mu.err != nil {
		return nil, s.mu.err
	}
	var out []model.Series
	for _, m := range s.mu.series {
		if matches(m.lbls, req.Matchers) && m.has(req) {
			out = append(out, &selected{s: s, m: m, req: *req})
		}
	}
	if err := req.Allows(len(out)); err != nil {
		return nil, err
	}
	sort.Slice(out, func(i, j int) bool { return labels.Compare(out[i].Labels(), out[j].Labels()) < 0 })
	return out, nil
}

func matches(ls labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

func (m *memSeries) has(req *model.SelectRequest) bool {
	for t := range m.floats {
		if t >= req.MinT && t <= req.MaxT {
			return true
		}
	}
	for t := range m.hists {
		if t >= req.MinT && t <= req.MaxT {
			return true
		}
	}
	return false
}

// SelectAll implements model.Reader.
func (s *Store) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*model.Selection, len(reqs))
	for i, req := range reqs {
		list, err := s.match(ctx, req)
		if err != nil {
			return nil, err
		}
		out[i] = &model.Selection{Series: list, Release: func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.mu.open--
		}}
	}
	s.mu.open += len(out)
	return out, nil
}

// LabelNames implements model.Reader.
func (s *Store) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	return s.collect(ctx, req, func(ls labels.Labels, add func(string)) {
		ls.Range(func(l labels.Label) { add(l.Name) })
	})
}

// LabelValues implements model.Reader.
func (s *Store) LabelValues(ctx context.Context, name string, req *model.SelectRequest) ([]string, error) {
	return s.collect(ctx, req, func(ls labels.Labels, add func(string)) {
		if v := ls.Get(name); v != "" {
			add(v)
		}
	})
}

func (s *Store) collect(ctx context.Context, req *model.SelectRequest, each func(labels.Labels, func(string))) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, err := s.match(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range list {
		each(m.Labels(), func(v string) { out = append(out, v) })
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Exemplars implements model.Reader.
func (s *Store) Exemplars(ctx context.Context, req *model.SelectRequest) ([]model.SeriesExemplars, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.mu.err != nil {
		return nil, s.mu.err
	}
	var out []model.SeriesExemplars
	for _, m := range s.mu.series {
		var in []model.Exemplar
		for _, e := range m.exemplars {
			if e.T >= req.MinT && e.T <= req.MaxT {
				in = append(in, e)
			}
		}
		if len(in) > 0 && matches(m.lbls, req.Matchers) {
			out = append(out, model.SeriesExemplars{Labels: m.lbls, Exemplars: in})
		}
	}
	sort.Slice(out, func(i, j int) bool { return labels.Compare(out[i].Labels, out[j].Labels) < 0 })
	return out, nil
}

// Metadata implements model.Reader.
func (s *Store) Metadata(_ context.Context, metric string) ([]model.Metadata, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []model.Metadata
	for _, m := range s.mu.meta {
		if metric == "" || m.Metric == metric {
			out = append(out, m)
		}
	}
	return out, s.mu.err
}

type selected struct {
	s   *Store
	m   *memSeries
	req model.SelectRequest
}

// Labels implements model.Series.
func (s *selected) Labels() labels.Labels { return s.m.lbls }

// Read implements model.Series.
func (s *selected) Read(dst *model.Columns) error {
	s.s.mu.Lock()
	defer s.s.mu.Unlock()
	for t := range s.m.floats {
		if t >= s.req.MinT && t <= s.req.MaxT {
			dst.T = append(dst.T, t)
		}
	}
	slices.Sort(dst.T)
	for _, t := range dst.T {
		f := s.m.floats[t]
		dst.V, dst.ST = append(dst.V, f.v), append(dst.ST, f.st)
	}
	for t, h := range s.m.hists {
		if t >= s.req.MinT && t <= s.req.MaxT {
			dst.Hist = append(dst.Hist, copyHist(h))
		}
	}
	sort.Slice(dst.Hist, func(i, j int) bool { return dst.Hist[i].T < dst.Hist[j].T })
	return nil
}
