package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
	"github.com/strandline-db/strandline/wal/vfs"
)

const senderLabel = "__replica__"

// pairSample is what a model knows of one sample.
type pairSample struct {
	bits, st uint64
	hist     bool
}

// pairModel is what a shard must hold: series, time, sample.
type pairModel map[string]map[int64]pairSample

// columns returns a series before t as a chooser takes it.
func (m pairModel) columns(key string, t int64) *model.Columns {
	c := &model.Columns{}
	for _, at := range slices.Sorted(maps.Keys(m[key])) {
		if at >= t {
			break
		}
		if s := m[key][at]; s.hist {
			c.Hist = append(c.Hist, model.HistogramSample{T: at, H: tsdbutil.GenerateTestHistogram(int64(s.bits))})
		} else {
			c.T, c.V, c.ST = append(c.T, at), append(c.V, math.Float64frombits(s.bits)), append(c.ST, int64(s.st))
		}
	}
	return c
}

// groups returns the keys of series that differ in the sender only, in order of the labels.
func (m pairModel) groups() [][]string {
	by := map[string][]string{}
	for key := range m {
		g := string(model.AppendKeyWithout(nil, []byte(key), senderLabel))
		by[g] = append(by[g], key)
	}
	var out [][]string
	for _, g := range slices.Sorted(maps.Keys(by)) {
		slices.SortFunc(by[g], func(a, b string) int {
			return labels.Compare(model.KeyLabels([]byte(a)), model.KeyLabels([]byte(b)))
		})
		out = append(out, by[g])
	}
	return out
}

// choose makes a choice: the whole of what it means.
func (m pairModel) choose(t int64) {
	var c pair.Chooser
	for _, keys := range m.groups() {
		var parts []*model.Columns
		for _, key := range keys {
			parts = append(parts, m.columns(key, t))
		}
		c.Keep(parts)
		for i, key := range keys {
			keep := map[int64]bool{}
			for _, at := range parts[i].T {
				keep[at] = true
			}
			for _, h := range parts[i].Hist {
				keep[h.T] = true
			}
			maps.DeleteFunc(m[key], func(at int64, _ pairSample) bool { return at < t && !keep[at] })
		}
	}
}

// clean returns what a reader of pairs shows of each group.
func (m pairModel) clean() (out []model.Columns) {
	var c pair.Chooser
	for _, keys := range m.groups() {
		var parts []*model.Columns
		for _, key := range keys {
			parts = append(parts, m.columns(key, math.MaxInt64))
		}
		out = append(out, model.Columns{})
		c.Merge(&out[len(out)-1], parts)
	}
	return out
}

// pairReplica is one replica of the shard, with files and background work of its own.
type pairReplica struct {
	*Shard
	name string
	fs   *vfs.MemFS
	opts Options
	cut  *Cut // frozen, and not yet persisted or given up
}

// pairWorld is a model and replicas that apply the same log.
type pairWorld struct {
	t        *testing.T
	rng      *rand.Rand
	model    pairModel
	log      [][]byte // entry i+1
	replicas []*pairReplica
	now      int64 // milliseconds
	cut      int64
	chosen   int64
	sent     []*model.Batch
	op       Op
	repairs  int
}

func newPairWorld(t *testing.T, seed uint64, replicas int) *pairWorld {
	w := &pairWorld{t: t, rng: rand.New(rand.NewPCG(seed, 7)), model: pairModel{}, now: 100 * pair.Bucket, cut: math.MinInt64, chosen: math.MinInt64}
	for i := range replicas {
		r := &pairReplica{name: fmt.Sprint("replica ", i), fs: vfs.NewMem()}
		r.opts = Options{Dir: "s", FS: r.fs, HotWindow: 2 * pair.Bucket * time.Millisecond, WarmWindow: 6 * pair.Bucket * time.Millisecond,
			ColdWindow: 12 * pair.Bucket * time.Millisecond, WarmAfter: 6 * pair.Bucket * time.Millisecond, ColdAfter: 20 * pair.Bucket * time.Millisecond,
			MergeAt: 3, Logger: slog.New(slog.DiscardHandler)}
		w.replicas = append(w.replicas, r)
		w.open(r)
		t.Cleanup(func() {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
			Check(context.Background(), r.opts, func(path string, err error) { t.Errorf("%s: %s: %v", r.name, path, err) })
		})
	}
	return w
}

func (w *pairWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// open opens a replica and replays the log above its manifest.
func (w *pairWorld) open(r *pairReplica) {
	w.t.Helper()
	var err error
	r.Shard, err = Open(r.opts)
	w.must(err)
	for i := r.Applied(); i < uint64(len(w.log)); i++ {
		_, err := r.Apply(i+1, w.log[i])
		w.must(err)
	}
}

// apply brings one entry to all replicas.
func (w *pairWorld) apply(ops ...[]byte) {
	w.t.Helper()
	payload := PayloadHeader(nil)
	for _, op := range ops {
		payload = append(payload, op...)
	}
	w.log = append(w.log, payload)
	for _, r := range w.replicas {
		_, err := r.Apply(uint64(len(w.log)), slices.Clone(payload))
		w.must(err)
	}
}

// encode makes a write of a batch, and brings it into the model.
func (w *pairWorld) encode(b *model.Batch) []byte {
	var items []Item
	for i, s := range b.Series {
		items = append(items, Item{Series: i, Hash: model.HashKey(s.Key), Key: s.Key})
	}
	lim := Limits{MinT: math.MinInt64, MaxT: math.MaxInt64}
	w.op.Reset()
	w.replicas[0].Encode(&w.op, b, items, &lim)
	for _, s := range b.Series {
		in := w.model[string(s.Key)]
		if in == nil {
			in = map[int64]pairSample{}
			w.model[string(s.Key)] = in
		}
		for i := s.From; i < s.To; i++ {
			if b.T[i] >= w.cut {
				in[b.T[i]] = pairSample{bits: math.Float64bits(b.V[i]), st: uint64(b.ST[i])}
			}
		}
		for _, h := range b.Hist[s.HFrom:s.HTo] {
			if h.T >= w.cut {
				in[h.T] = pairSample{hist: true, bits: h.H.ZeroCount - 2}
			}
		}
	}
	return slices.Clone(w.op.Bytes(&lim))
}

// batch has the samples of some series and senders between two times, with gaps.
func (w *pairWorld) batch(from, to int64) *model.Batch {
	b := &model.Batch{}
	gone := w.rng.IntN(6) // a sender that is away; mostly none
	for s := range 3 {
		for sender, name := range []string{"a", "b", ""} {
			if sender == gone || name == "" && s > 0 {
				continue
			}
			ls := labels.FromStrings("__name__", "m", "s", fmt.Sprint(s))
			if name != "" {
				ls = labels.FromStrings("__name__", "m", senderLabel, name, "s", fmt.Sprint(s))
			}
			bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist), EFrom: len(b.Exemplars)}
			interval := int64(60_000)
			for at := from - from%interval + int64(s)*7_000 + int64(sender)*20_000; at < to; at += interval {
				jitter := w.rng.Int64N(3_000)
				switch v := w.rng.Float64(); {
				case v < 0.05: // a failed scrape
				case v < 0.07:
					b.T, b.V, b.ST = append(b.T, at+jitter), append(b.V, math.Float64frombits(value.StaleNaN)), append(b.ST, 0)
				case s == 2:
					h := tsdbutil.GenerateTestHistogram(int64(w.rng.IntN(100)))
					b.Hist = append(b.Hist, model.HistogramSample{T: at + jitter, H: h})
				default:
					b.T, b.V, b.ST = append(b.T, at+jitter), append(b.V, v), append(b.ST, at*int64(s))
					if v > 0.97 {
						b.Exemplars = append(b.Exemplars, model.Exemplar{T: at, Value: v})
					}
				}
			}
			bs.To, bs.HTo, bs.ETo = len(b.T), len(b.Hist), len(b.Exemplars)
			b.Series = append(b.Series, bs)
		}
	}
	return b
}

// choose makes a choice, and checks that no query that joins senders sees it.
func (w *pairWorld) choose(t int64) {
	w.t.Helper()
	before := w.model.clean()
	if t > w.chosen {
		w.model.choose(t)
		w.chosen = t
	}
	for i, c := range w.model.clean() {
		sameColumns(w.t, "the clean series before and after a choice", &c, &before[i])
	}
}

func sameColumns(t *testing.T, what string, got, want *model.Columns) {
	t.Helper()
	bits := func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }
	st := func(c *model.Columns) []int64 {
		if len(c.ST) == 0 {
			return make([]int64, len(c.T))
		}
		return c.ST
	}
	same := slices.Equal(got.T, want.T) && slices.EqualFunc(got.V, want.V, bits) && slices.Equal(st(got), st(want)) &&
		slices.EqualFunc(got.Hist, want.Hist, func(a, b model.HistogramSample) bool { return a.T == b.T && a.H.Equals(b.H) })
	if !same {
		t.Fatalf("%s:\n got %v %v, %d histograms\nwant %v %v, %d histograms", what, got.T, got.V, len(got.Hist), want.T, want.V, len(want.Hist))
	}
}

// step does one random thing to the log.
func (w *pairWorld) step() {
	w.t.Helper()
	last := w.now
	switch w.rng.IntN(10) {
	case 0: // late, of any age
		from := w.now - w.rng.Int64N(40*pair.Bucket)
		b := w.batch(from, from+w.rng.Int64N(3*pair.Bucket))
		w.sent = append(w.sent, b)
		w.apply(w.encode(b))
	case 1: // a retry of anything
		if len(w.sent) > 0 {
			w.apply(w.encode(w.sent[w.rng.IntN(len(w.sent))]))
		}
	case 2, 3: // a choice; now and then with writes on both sides of it in its entry
		t := floorTo(w.now-w.rng.Int64N(12*pair.Bucket), pair.Bucket)
		var ops [][]byte
		if w.rng.IntN(2) == 0 {
			ops = append(ops, w.encode(w.batch(t-pair.Bucket, t+pair.Bucket)))
		}
		ops = append(ops, AppendChooseOp(nil, t+w.rng.Int64N(1000), senderLabel))
		if w.rng.IntN(2) == 0 {
			ops = append(ops, w.encode(w.batch(t-pair.Bucket, t)))
		}
		w.choose(t)
		w.apply(ops...)
	case 4:
		w.cut = max(w.cut, floorTo(w.now-60*pair.Bucket, pair.Bucket))
		for _, in := range w.model {
			maps.DeleteFunc(in, func(at int64, _ pairSample) bool { return at < w.cut })
		}
		w.apply(AppendCutOp(nil, w.cut))
	default:
		w.now += w.rng.Int64N(2 * pair.Bucket)
		b := w.batch(last, w.now)
		w.sent = append(w.sent, b)
		w.apply(w.encode(b))
	}
}

// work does one random thing to a replica that must not show.
func (w *pairWorld) work(r *pairReplica) {
	w.t.Helper()
	ctx := context.Background()
	if r.cut != nil { // the log goes on meanwhile
		switch w.rng.IntN(3) {
		case 0:
			r.Unfreeze(r.cut)
			r.cut = nil
		case 1:
			w.must(r.Persist(ctx, r.cut, Mark{Applied: r.cut.applied, Term: 1}))
			r.cut = nil
		}
		return
	}
	switch w.rng.IntN(9) {
	case 0, 1:
		_, err := r.Flush(ctx)
		w.must(err)
	case 2, 3:
		// Clocks differ: what is merged where, and when, must not matter.
		w.must(r.Maintain(ctx, time.UnixMilli(w.now+w.rng.Int64N(20*pair.Bucket)-10*pair.Bucket)))
	case 4:
		r.cut = r.Freeze()
	case 5:
		w.must(r.Close())
		w.open(r)
	case 6:
		w.borrow(r, w.replicas[w.rng.IntN(len(w.replicas))])
	}
}

// borrow repairs a block of a replica from another, or installs the other's state.
func (w *pairWorld) borrow(r, from *pairReplica) {
	w.t.Helper()
	ctx := context.Background()
	offer, err := from.Offer(ctx)
	w.must(err)
	defer func() { w.must(offer.Release()) }()
	fetch := func(_ context.Context, name string, off int64, n int, use func([]byte) error) error {
		b, err := from.ReadBlock(nil, name, off, n)
		if err != nil {
			return err
		}
		return use(b)
	}
	blocks := r.Blocks()
	switch {
	case r == from:
	case len(blocks) > 0 && w.rng.IntN(4) > 0:
		err := r.Repair(ctx, blocks[w.rng.IntN(len(blocks))].Name, offer.Data, fetch)
		if err == nil {
			w.repairs++
		} else if !errors.Is(err, ErrBehind) {
			w.t.Fatal(err)
		}
	case offer.Manifest.Applied >= r.Manifest().Applied:
		w.must(r.Install(ctx, offer.Data, Mark{Applied: offer.Manifest.Applied, Term: 1}, fetch))
		for i := r.Applied(); i < uint64(len(w.log)); i++ {
			_, err := r.Apply(i+1, w.log[i])
			w.must(err)
		}
	}
}

// check compares a replica with the model.
func (w *pairWorld) check(r *pairReplica) {
	w.t.Helper()
	minT, maxT := int64(math.MinInt64), int64(math.MaxInt64)
	if w.rng.IntN(2) == 0 {
		minT = w.now - w.rng.Int64N(40*pair.Bucket)
		maxT = minT + w.rng.Int64N(20*pair.Bucket)
	}
	req := &model.SelectRequest{MinT: minT, MaxT: maxT}
	one := ""
	if w.rng.IntN(3) == 0 {
		one = []string{"a", "b", ""}[w.rng.IntN(3)]
		req.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, senderLabel, one)}
	}
	sel, err := r.Select(context.Background(), req)
	w.must(err)
	defer func() { w.must(sel.Close()) }()
	seen := map[string]bool{}
	for _, s := range sel.Series {
		key := string(model.AppendKey(nil, s.Labels()))
		seen[key] = true
		var got model.Columns
		w.must(s.Read(&got))
		sameColumns(w.t, fmt.Sprintf("%s: %s in [%d, %d] after entry %d", r.name, s.Labels(), minT, maxT, len(w.log)), &got, w.model.within(key, minT, maxT))
	}
	for key := range w.model {
		ls := model.KeyLabels([]byte(key))
		c := w.model.within(key, minT, maxT)
		if len(c.T)+len(c.Hist) > 0 && !seen[key] && (req.Matchers == nil || ls.Get(senderLabel) == one) {
			w.t.Fatalf("%s: %s is missing", r.name, ls)
		}
	}
}

func (m pairModel) within(key string, minT, maxT int64) *model.Columns {
	in := pairModel{key: maps.Clone(m[key])}
	maps.DeleteFunc(in[key], func(at int64, _ pairSample) bool { return at < minT || at > maxT })
	return in.columns(key, math.MaxInt64)
}

// TestChoices: whatever is written in whatever order, and however replicas flush, merge,
// crash and replay, each holds what the log says at every entry, and all have one hash.
func TestChoices(t *testing.T) {
	repairs := 0
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newPairWorld(t, seed, 2)
			for range 60 {
				w.step()
				for _, r := range w.replicas {
					w.work(r)
					w.check(r)
				}
				if w.rng.IntN(4) == 0 {
					w.sameHash()
				}
			}
			w.sameHash()
			repairs += w.repairs
		})
	}
	if repairs == 0 {
		t.Error("no block was repaired from another replica")
	}
}

func (w *pairWorld) sameHash() {
	w.t.Helper()
	_, want, err := w.replicas[0].Hash(context.Background())
	w.must(err)
	for _, r := range w.replicas[1:] {
		index, got, err := r.Hash(context.Background())
		w.must(err)
		if got != want || index != uint64(len(w.log)) {
			w.t.Fatalf("%s has the hash %x at %d, the first %x", r.name, got, index, want)
		}
	}
}

// TestRetryBehindChoice: a retry of a sample that a choice has dropped brings it back, on a
// replica that knows it as its series' newest and on one that does not.
func TestRetryBehindChoice(t *testing.T) {
	w := newPairWorld(t, 1, 2)
	from := w.now
	w.apply(w.encode(scrapes(from, 10)))
	_, err := w.replicas[1].Flush(context.Background())
	w.must(err)
	w.must(w.replicas[1].Close())
	w.open(w.replicas[1])
	w.choose(from + pair.Bucket)
	w.apply(AppendChooseOp(nil, from+pair.Bucket, senderLabel))
	had := len(w.model[string(senderKey("b"))])
	w.apply(w.encode(scrapes(from, 10)))
	if n := len(w.model[string(senderKey("b"))]); had != 0 || n != 10 {
		t.Fatalf("the model has %d samples of the second sender, then %d", had, n)
	}
	for _, r := range w.replicas {
		w.check(r)
	}
	w.sameHash()
}

func senderKey(sender string) []byte {
	return model.AppendKey(nil, labels.FromStrings("__name__", "m", senderLabel, sender))
}

// scrapes is what two senders have of one series, every 15 s from a time on.
func scrapes(from int64, n int) *model.Batch {
	b := &model.Batch{}
	for i, sender := range []string{"a", "b"} {
		bs := model.BatchSeries{Key: senderKey(sender), From: len(b.T)}
		for k := range int64(n) {
			b.T, b.V, b.ST = append(b.T, from+k*15_000+int64(i)*7_000), append(b.V, float64(k)), append(b.ST, 0)
		}
		bs.To = len(b.T)
		b.Series = append(b.Series, bs)
	}
	return b
}

// TestChoiceCrash: a power cut at any step of a flush and the merges that do a choice
// leaves what the log says.
func TestChoiceCrash(t *testing.T) {
	w := newPairWorld(t, 2, 1)
	r := w.replicas[0]
	from := w.now
	const window = 6 * pair.Bucket
	w.apply(w.encode(scrapes(floorTo(from, window), 100)))
	w.must2(r.Flush(context.Background()))
	w.apply(w.encode(scrapes(floorTo(from, window)+200*15_000, 100)))
	w.must2(r.Flush(context.Background()))
	late := w.encode(scrapes(floorTo(from, window)+50*15_000, 40))
	w.apply(late)
	w.choose(floorTo(from, window) + window)
	w.apply(AppendChooseOp(nil, floorTo(from, window)+window, senderLabel))
	w.apply(w.encode(scrapes(floorTo(from, window)+90*15_000, 80)))
	w.check(r)
	steps := map[string]int{}
	r.Shard.opts.Failpoint = func(name string) {
		steps[name]++
		clone := &pairReplica{name: fmt.Sprintf("after %s %d", name, steps[name]), fs: r.fs.CrashClone(w.rng, 50), opts: r.opts}
		clone.opts.FS = clone.fs
		w.open(clone)
		w.checkWhole(clone)
		w.must(clone.Maintain(context.Background(), time.UnixMilli(w.now+40*pair.Bucket)))
		w.must2(clone.Flush(context.Background()))
		w.must(clone.Maintain(context.Background(), time.UnixMilli(w.now+40*pair.Bucket)))
		w.checkWhole(clone)
		w.must(clone.Close())
	}
	w.must2(r.Flush(context.Background()))
	w.must(r.Maintain(context.Background(), time.UnixMilli(w.now)))
	w.must(r.Maintain(context.Background(), time.UnixMilli(w.now+40*pair.Bucket)))
	r.Shard.opts.Failpoint = nil
	w.checkWhole(r)
	if steps["merge-before-manifest"] < 2 || steps["flush-before-manifest"] == 0 {
		t.Errorf("the steps were %v", steps)
	}
	for _, b := range r.Blocks() {
		if b.pending(r.Manifest().Choices) {
			t.Errorf("block %+v has not heard of the choice", b)
		}
	}
}

func (w *pairWorld) must2(_ uint64, err error) {
	w.t.Helper()
	w.must(err)
}

// checkWhole compares all that a replica holds with the model.
func (w *pairWorld) checkWhole(r *pairReplica) {
	w.t.Helper()
	for range 8 {
		w.check(r)
	}
}
