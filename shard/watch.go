package shard

import (
	"context"
	"math"
	"slices"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/index"
	"github.com/strandline-db/strandline/shard/model"
)

// Sink takes what is applied to watched series. All methods but Wake are called under
// the shard's lock: they only copy and count. Whatever a Select shows the sink has been
// given, or is once HandOver has returned if its watch is patient.
type Sink interface {
	// Match counts series that match from now on (n > 0) or no longer; false: these are
	// too many, and the series goes unwatched.
	Match(n int) bool
	// Number returns a number for a series that has its first sample.
	Number() uint32
	// Take copies what an entry brought, or several if the watch is patient; d is used
	// again. true: Wake is to be called.
	Take(d *Delta) bool
	// Wake is called without a lock on the goroutine that applies.
	Wake()
}

// Delta is what log entries brought to a watch, in order of application.
type Delta struct {
	w        *Watch
	log      []model.FeedSample
	gathered []gathered
}

// News is what an entry seldom brings.
type News struct {
	Series []model.FeedSeries
	Reset  bool  // the shard's content was replaced
	Cut    int64 // samples before it are gone; math.MinInt64: none
}

// chain is the samples of one watch among all that were gathered.
type chain struct{ n, first, last int32 }

// gathered says that one of the watches is to be given a sample.
type gathered struct {
	at   int32  // in the log
	id   uint32 // the sink's number of the series
	next int32  // the next one of that watch
}

// News returns what there is beside samples; nil: nothing.
func (d *Delta) News() *News {
	if !d.w.hasNews {
		return nil
	}
	return &d.w.news
}

// Len returns how many samples there are.
func (d *Delta) Len() int { return int(d.w.samples.n) }

// AppendSamples appends the samples to dst.
func (d *Delta) AppendSamples(dst []model.FeedSample) []model.FeedSample {
	dst = slices.Grow(dst, d.Len())
	at := d.w.samples.first
	for range d.w.samples.n {
		g := &d.gathered[at]
		dst = append(dst, d.log[g.at])
		dst[len(dst)-1].Series = g.id
		at = g.next
	}
	return dst
}

const (
	// gatheredMax is how many of them a head keeps memory for.
	gatheredMax = 8192
	// logMax is how many samples wait for patient watches before they are handed over.
	logMax = 2048
)

// Watch is a subscription to what is applied to the series that match. The head's lock
// guards it. What each sample touches comes first: half a cache line.
type Watch struct {
	sink     Sink
	samples  chain
	dirty    bool
	closed   bool
	patient  bool
	hasNews  bool
	news     News
	matchers []*labels.Matcher
	series   []uint32 // numbers of those that it watches, and of some that have left
	living   int      // how many it watches
}

// watching is what a head knows of its watches.
type watching struct {
	byName   map[string][]*Watch // of one metric name
	rest     []*Watch            // of any
	by       watchers            // of the series that are watched
	log      []model.FeedSample  // of watched series, by their numbers here: what waits to be handed over
	urgent   bool                // one of the log's is for a watch that isn't patient
	leaving  []*series           // watched ones that have left, until that is handed over
	dirty    []*Watch            // that have something to be taken
	gathered []gathered          // scratch of takeLocked
	delta    Delta               // for sinks to look at
	wake     []Sink              // to be woken by whoever applies next
}

// Watch hands everything that is applied to matching series from now on to sink,
// until Unwatch. patient: it need not have it before HandOver, which is cheaper, since the
// samples of many entries are then handed over together.
func (s *Shard) Watch(ctx context.Context, ms []*labels.Matcher, sink Sink, patient bool) (*Watch, error) {
	h := s.head
	h.mu.Lock()
	defer h.mu.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	h.takeLocked() // what was applied before is not for this one
	w := &Watch{matchers: ms, sink: sink, patient: patient, news: News{Cut: math.MinInt64}}
	if err := h.markLocked(w); err != nil {
		return nil, err
	}
	if name, ok := w.name(); ok {
		if h.mu.watch.byName == nil {
			h.mu.watch.byName = map[string][]*Watch{}
		}
		h.mu.watch.byName[name] = append(h.mu.watch.byName[name], w)
	} else {
		h.mu.watch.rest = append(h.mu.watch.rest, w)
	}
	return w, nil
}

// Unwatch ends a watch: its sink is not called again, but for a Wake that is under
// way. Idempotent.
func (s *Shard) Unwatch(w *Watch) {
	h := s.head
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	is := func(x *Watch) bool { return x == w }
	if name, ok := w.name(); ok {
		list := slices.DeleteFunc(h.mu.watch.byName[name], is)
		if h.mu.watch.byName[name] = list; len(list) == 0 {
			delete(h.mu.watch.byName, name)
		}
	} else {
		h.mu.watch.rest = slices.DeleteFunc(h.mu.watch.rest, is)
	}
	for _, no := range w.series {
		h.mu.watch.by.remove(no, w)
		if x := h.mu.byNo.get(no); x != nil {
			x.watched = h.mu.watch.by.interest(no)
		}
	}
	if !h.anyWatchLocked() {
		h.mu.watch = watching{wake: h.mu.watch.wake}
	}
}

// HandOver gives the sinks of patient watches what they have not been given so far. It
// does not wake them: whoever applies next does that.
func (s *Shard) HandOver() {
	h := s.head
	if !h.waits.Load() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.takeLocked()
	h.waits.Store(false)
}

// name returns the one metric name that the watch wants.
func (w *Watch) name() (string, bool) {
	for _, m := range w.matchers {
		if m.Name == commonmodel.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != "" {
			return m.Value, true
		}
	}
	return "", false
}

// markLocked marks the series that match a watch.
func (h *head) markLocked(w *Watch) error {
	ids, err := index.Select(h.mu.postings, w.matchers)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if x := h.mu.byNo.get(id); x != nil && w.sink.Match(1) {
			h.watchLocked(x, w)
		}
	}
	return nil
}

func (h *head) watchLocked(x *series, w *Watch) {
	h.mu.watch.by.add(x.no, w)
	x.watched = max(x.watched, w.interest())
	if len(w.series) >= 2*w.living+minWatched { // most have left
		w.series = slices.DeleteFunc(w.series, func(no uint32) bool { return !h.mu.watch.by.has(no, w) })
	}
	w.series = append(w.series, x.no)
	w.living++
}

// minWatched is how many numbers of series a watch has before it looks for those that left.
const minWatched = 64

// watchNewLocked marks a series that was just inserted for whoever it matches.
func (h *head) watchNewLocked(x *series) {
	var ls labels.Labels
	for _, list := range [][]*Watch{h.mu.watch.byName[string(model.KeyValue([]byte(x.key), commonmodel.MetricNameLabel))], h.mu.watch.rest} {
		for _, w := range list {
			if ls.IsEmpty() {
				ls = model.KeyLabels([]byte(x.key))
			}
			if !matchAll(ls, w.matchers) {
				continue
			}
			if w.sink.Match(1) {
				h.watchLocked(x, w)
			} else {
				h.dirtyLocked(w) // it has something to say to its reader
			}
		}
	}
}

// tell returns what the watch is told beside samples, to be added to.
func (w *Watch) tell() *News {
	w.hasNews = true
	return &w.news
}

// forget drops what was gathered for the watch.
func (w *Watch) forget() {
	w.samples.n = 0
	if w.hasNews {
		clear(w.news.Series)
		w.news = News{Series: w.news.Series[:0], Cut: math.MinInt64}
		w.hasNews = false
	}
}

func matchAll(ls labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(ls.Get(m.Name)) {
			return false
		}
	}
	return true
}

// anyWatchLocked tells whether there is a watch.
func (h *head) anyWatchLocked() bool { return len(h.mu.watch.byName)+len(h.mu.watch.rest) > 0 }

// interest is how much a series is watched.
type interest uint8

const (
	unwatched interest = iota
	patiently
	urgently
)

func (w *Watch) interest() interest {
	if w.patient {
		return patiently
	}
	return urgently
}

// unmarkLocked makes a series that leaves the head unwatched.
func (h *head) unmarkLocked(x *series) {
	x.watched = unwatched
	h.mu.watch.leaving = append(h.mu.watch.leaving, x)
}

// releaseLocked ends the watches of the series that have left.
func (h *head) releaseLocked() {
	by := &h.mu.watch.by
	for _, x := range h.mu.watch.leaving {
		for i := by.of(x.no); i != 0; i = by.links[i].next {
			by.links[i].w.sink.Match(-1)
			by.links[i].w.living--
		}
		by.remove(x.no, nil)
	}
	h.mu.watch.leaving = nil
}

// watchedLocked returns a series that is watched, or was until it left.
func (h *head) watchedLocked(no uint32) *series {
	if x := h.mu.byNo.get(no); x != nil {
		return x
	}
	for _, x := range h.mu.watch.leaving {
		if x.no == no {
			return x
		}
	}
	return nil
}

func (h *head) dirtyLocked(w *Watch) {
	if !w.dirty {
		w.dirty = true
		h.mu.watch.dirty = append(h.mu.watch.dirty, w)
	}
}

// gatherLocked notes a sample of a watched series. It touches nothing of the watches:
// between two samples they would have left the processor's caches.
func (h *head) gatherLocked(x *series, t, st int64, v float64, hist *model.HistogramSample) {
	wt := &h.mu.watch
	wt.log = append(wt.log, model.FeedSample{Series: x.no, T: t, ST: st, V: v, Hist: hist})
	wt.urgent = wt.urgent || x.watched == urgently
}

// distributeLocked finds out whom the log's samples are for.
func (h *head) distributeLocked() {
	wt := &h.mu.watch
	for at := range wt.log {
		no := wt.log[at].Series
		for i := wt.by.of(no); i != 0; {
			e := &wt.by.links[i]
			if e.id == 0 {
				e.id = e.w.sink.Number() + 1
				e.w.tell().Series = append(e.w.news.Series, model.FeedSeries{ID: e.id - 1, Labels: model.KeyLabels([]byte(h.watchedLocked(no).key))})
			}
			e.w.samples.add(&wt.gathered, gathered{at: int32(at), id: e.id - 1})
			h.dirtyLocked(e.w)
			i = e.next
		}
	}
}

// add appends what all points to.
func (c *chain) add(all *[]gathered, g gathered) {
	at := int32(len(*all))
	*all = append(*all, g)
	if c.n == 0 {
		c.first = at
	} else {
		(*all)[c.last].next = at
	}
	c.last = at
	c.n++
}

// gatherBlobLocked notes a histogram of a watched series. One that can't be decoded,
// which no encoder of ours makes, sends the watchers to the storage for it.
func (h *head) gatherBlobLocked(x *series, b *blob) {
	hist, err := DecodeHistogram(b.data, b.t, b.st)
	if err == nil {
		h.gatherLocked(x, b.t, b.st, 0, &hist)
		return
	}
	by := &h.mu.watch.by
	for i := by.of(x.no); i != 0; i = by.links[i].next {
		w := by.links[i].w
		w.tell().Reset = true
		h.dirtyLocked(w)
	}
}

// eachWatchLocked calls fn with every watch and marks it dirty.
func (h *head) eachWatchLocked(fn func(*Watch)) {
	each := func(list []*Watch) {
		for _, w := range list {
			fn(w)
			h.dirtyLocked(w)
		}
	}
	each(h.mu.watch.rest)
	for _, list := range h.mu.watch.byName {
		each(list)
	}
}

// rewatchLocked marks the series of a head whose content was replaced.
func (h *head) rewatchLocked() {
	for i := range h.mu.watch.by.links {
		if w := h.mu.watch.by.links[i].w; w != nil {
			w.sink.Match(-1)
		}
	}
	h.mu.watch.by, h.mu.watch.log, h.mu.watch.leaving = watchers{}, nil, nil
	h.eachWatchLocked(func(w *Watch) {
		w.forget()
		w.tell().Reset = true
		w.series, w.living = nil, 0
		_ = h.markLocked(w) // an index in memory has no errors
	})
}

// resetWatchesLocked tells the watchers that samples have come by another way than apply.
func (h *head) resetWatchesLocked() {
	h.eachWatchLocked(func(w *Watch) { w.tell().Reset = true })
}

// takeLocked hands what was gathered to the sinks, and notes those that are to be woken.
func (h *head) takeLocked() {
	h.distributeLocked()
	wt := &h.mu.watch
	for i, w := range wt.dirty {
		wt.delta = Delta{w, wt.log, wt.gathered}
		if !w.closed && w.sink.Take(&wt.delta) {
			wt.wake = append(wt.wake, w.sink)
		}
		w.forget()
		w.dirty = false
		wt.dirty[i] = nil
	}
	wt.dirty, wt.delta, wt.urgent = wt.dirty[:0], Delta{}, false
	clear(wt.log)
	if wt.log = wt.log[:0]; cap(wt.log) > gatheredMax {
		wt.log = nil
	}
	if wt.gathered = wt.gathered[:0]; cap(wt.gathered) > gatheredMax {
		wt.gathered = nil
	}
	h.releaseLocked()
}

// showLocked ends a change of the head and returns the sinks to wake: the watchers have
// what it brought, or know that they can have it, before anyone is told how far the head
// has come.
func (h *head) showLocked() (wake []Sink) {
	wt := &h.mu.watch
	if wt.urgent || len(wt.dirty)+len(wt.leaving) > 0 || len(wt.log) >= logMax {
		h.takeLocked()
	}
	if waits := len(wt.log) > 0; waits != h.waits.Load() {
		h.waits.Store(waits)
	}
	wake, wt.wake = wt.wake, nil
	h.shown.Store(h.mu.applied)
	return wake
}

func wakeAll(sinks []Sink) {
	for _, s := range sinks {
		s.Wake()
	}
}
