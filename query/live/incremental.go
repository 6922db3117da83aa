package live

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// incremental is the source that keeps the samples a step can need, and is told of
// those that come.
type incremental struct {
	e     *evaluation
	chain *chain
	feed  model.Feed
	batch model.FeedBatch

	byID   []*window          // by number in the feed, which are given in turn
	byKey  map[string]*window // by label set
	order  []*window          // sorted by labels, as the engine reads them
	sorted bool
	levels []map[string]*output // by label set
	pass   uint64
	total  int // samples held, roughly
	living int // windows that hold any
	cols   model.Columns
	buf    scratch
	// strange counts the steps in a row that the engine had to be asked for.
	strange int
	asks    bool // the engine must be asked for a step
	torn    bool // the feed has not brought everything: the storage must be read
	paired  bool // a series is one of a pair: the engine reads it otherwise
}

// errTooMuch: an evaluation would hold more than it may, or what only the engine
// understands; it must be stepped.
var errTooMuch = errors.New("live: more than an incremental evaluation may hold")

const (
	seriesCost = 8 // samples that a series counts for in Options.MaxSamples
	maxStrange = 16
)

func newIncremental(e *evaluation, c *chain) *incremental {
	s := &incremental{e: e, chain: c}
	s.clear()
	return s
}

func (s *incremental) clear() {
	s.byID, s.byKey, s.order = nil, map[string]*window{}, nil
	s.levels = make([]map[string]*output, len(s.chain.aggs)+1)
	for i := range s.levels {
		s.levels[i] = map[string]*output{}
	}
	s.total, s.torn = 0, false
}

func (s *incremental) cold() bool { return s.feed == nil || s.torn || s.asks }

func (s *incremental) close() {
	if s.feed != nil {
		s.feed.Close()
		s.feed = nil
	}
	s.clear()
}

// refresh implements source. errTooMuch says that another source must take over, errDeaf that
// what is known is taken in, and may lack something.
func (s *incremental) refresh(ctx context.Context, since int64) (span, error) {
	changed, err := s.take(ctx, since)
	var limit *model.LimitError
	switch {
	case errors.As(err, &limit):
		err = errTooMuch
	case err == nil && (s.strange > maxStrange || s.paired):
		err = errTooMuch
	case err == nil && s.batch.Lacks:
		err = errDeaf
	}
	return changed, err
}

func (s *incremental) take(ctx context.Context, since int64) (span, error) {
	oldest := since - s.chain.window // the first that no step needs
	s.asks = false
	if len(s.byKey) > 2*s.living+1000 {
		s.close() // most of what it knows is of series that are no more
	}
	changed := none
	if s.feed == nil {
		if err := s.begin(ctx, oldest); err != nil {
			return none, err
		}
		changed = always
	}
	if err := s.feed.Poll(&s.batch); err != nil {
		s.close()
		return none, err
	}
	s.meet()
	if s.torn = s.torn || s.batch.Lost > 0 || s.batch.Reset; s.torn {
		return always, s.seed(ctx, oldest)
	}
	last := s.e.next - s.e.key.step // the newest step that is out
	for i := range s.batch.Samples {
		x := &s.batch.Samples[i]
		if x.T <= oldest || x.T < s.batch.Cut {
			continue
		}
		w := s.byID[x.Series]
		if x.Hist != nil {
			s.total += w.putHist(x.T)
		} else {
			s.total += w.put(x.T, x.V)
		}
		if x.T <= last {
			changed.add(x.T, x.T+s.chain.window-1)
		}
	}
	if s.batch.Cut > oldest {
		oldest = s.batch.Cut - 1
		changed = always
		s.cut(s.batch.Cut)
	}
	s.trim(oldest + 1)
	if s.size() > s.e.hub.opts.MaxSamples {
		return changed, errTooMuch
	}
	return changed, nil
}

func (s *incremental) size() int { return s.total + seriesCost*len(s.byKey) }

func (s *incremental) maxSeries() int { return max(s.e.hub.opts.MaxSamples/seriesCost, 1) }

// begin opens the feed and reads what was applied before.
func (s *incremental) begin(ctx context.Context, oldest int64) error {
	if s.e.light() {
		return errHeavy
	}
	const buffer = 1 << 16
	feed, err := s.e.hub.feeder.Subscribe(ctx, &model.FeedRequest{
		Matchers: s.chain.matchers, MaxSeries: s.maxSeries(), Buffer: buffer, WakeAt: buffer / 2,
		Wake: func() { s.e.hub.sched.kick(s.e) },
	})
	if err != nil {
		return err
	}
	s.feed = feed
	return s.seed(ctx, oldest)
}

// seed reads from the storage what is newer than oldest. What the feed has given by
// now is in it.
func (s *incremental) seed(ctx context.Context, oldest int64) error {
	if s.e.light() {
		return errHeavy
	}
	sel, err := model.Select(ctx, s.e.hub.reader, &model.SelectRequest{MinT: oldest + 1, MaxT: maxTime, Matchers: s.chain.matchers, MaxSeries: s.maxSeries()})
	if err != nil {
		s.close() // begin anew with the next step
		return err
	}
	defer sel.Close()
	for _, w := range s.byKey {
		w.load(&model.Columns{})
	}
	s.total = 0
	for _, x := range sel.Series {
		s.cols.Reset()
		if err := x.Read(&s.cols); err != nil {
			s.close()
			return err
		}
		w := s.window(x.Labels())
		w.load(&s.cols)
		if s.total += len(w.ts) + len(w.hist); s.size() > s.e.hub.opts.MaxSamples {
			return errTooMuch
		}
	}
	s.living, s.torn = len(s.byKey), false
	return nil
}

// meet learns the numbers that the feed gives.
func (s *incremental) meet() {
	for _, d := range s.batch.Series {
		if more := int(d.ID) + 1 - len(s.byID); more > 0 {
			s.byID = append(s.byID, make([]*window, more)...)
		}
		s.byID[d.ID] = s.window(d.Labels)
	}
}

// window returns the window of a series, a new one if there is none.
func (s *incremental) window(ls labels.Labels) *window {
	key := string(ls.Bytes(nil))
	w := s.byKey[key]
	if w == nil {
		s.paired = s.paired || s.pairs(ls)
		w = &window{labels: ls, out: s.output(0, ls)}
		s.byKey[key] = w
		s.order = append(s.order, w)
		s.sorted = false
	}
	return w
}

// pairs tells whether a series is one of a pair that queries read as one.
func (s *incremental) pairs(ls labels.Labels) bool {
	label := s.e.hub.opts.ReplicaLabel
	named := func(m *labels.Matcher) bool { return m.Name == label }
	return label != "" && ls.Has(label) && !slices.ContainsFunc(s.chain.matchers, named)
}

func (s *incremental) trim(t int64) {
	s.total, s.living = 0, 0
	for _, w := range s.order {
		if n := w.trim(t); n > 0 {
			s.total += n
			s.living++
		}
	}
}

// cut drops the samples before t at once.
func (s *incremental) cut(t int64) {
	for _, w := range s.order {
		i, _ := slices.BinarySearch(w.ts, t)
		w.ts, w.vs = w.ts[i:], w.vs[i:]
		i, _ = slices.BinarySearch(w.hist, t)
		w.hist = w.hist[i:]
	}
}

// steps implements source.
func (s *incremental) steps(ctx context.Context, from, to int64) ([]*Step, error) {
	if !s.sorted {
		slices.SortFunc(s.order, func(a, b *window) int { return labels.Compare(a.labels, b.labels) })
		s.sorted = true
	}
	var steps []*Step
	for t := from; t <= to; t += s.e.key.step {
		rows, ok := s.step(t)
		if ok {
			s.strange = 0
			if len(rows) > s.e.hub.opts.MaxSeries {
				return steps, tooManySeries(s.e.hub.opts.MaxSeries)
			}
			steps = append(steps, s.e.number([]int64{t}, [][]row{rows})...)
			continue
		}
		if s.e.light() {
			s.asks = true
			return steps, errHeavy
		}
		s.strange++
		asked, err := s.e.instants(ctx, t, t)
		if err != nil {
			return steps, err
		}
		steps = append(steps, asked...)
	}
	return steps, nil
}

// step computes the result at t; false: the engine must be asked, for there are
// histograms in it, or series that differ in the name alone.
func (s *incremental) step(t int64) ([]row, bool) {
	s.pass++
	var list []*output
	from := t - s.chain.window
	for _, w := range s.order {
		if w.histIn(from, t) {
			return nil, false
		}
		v, ok := s.value(w, t)
		if !ok {
			continue
		}
		o := w.out
		if o.pass == s.pass {
			return nil, false // two of one label set
		}
		o.pass, o.value = s.pass, v
		list = append(list, o)
	}
	for i := range s.chain.aggs {
		list = s.fold(list, s.chain.aggs[i].op)
	}
	rows := make([]row, len(list))
	for i, o := range list {
		rows[i] = row{labels: o.labels, value: Value{V: o.value}, slot: &o.named}
	}
	return rows, true
}

func (s *incremental) value(w *window, t int64) (float64, bool) {
	if s.chain.fn == nil {
		return w.newest(t, s.chain.window)
	}
	ts, vs := w.floats(t-s.chain.window, t, &s.buf)
	if len(ts) == 0 {
		return 0, false
	}
	return s.chain.fn(ts, vs, t, s.chain.window)
}
