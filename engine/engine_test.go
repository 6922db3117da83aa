package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is an engine in a folder, with a clock that the test moves. When the test
// ends the folder is checked.
type fixture struct {
	*DB
	t     *testing.T
	dir   string
	clock *clock.Manual
	opts  Options
}

var start = time.UnixMilli(1_700_000_000_000)

func newFixture(t *testing.T, o Options) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), clock: clock.NewManual(start), opts: o}
	f.opts.Clock = f.clock
	if f.opts.Shards == 0 {
		f.opts.Shards = 3
	}
	f.open()
	t.Cleanup(func() {
		f.close()
		if err := Check(f.dir, &f.opts, func(p string, err error) { t.Errorf("check: %s: %v", p, err) }); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	db, err := Open(f.dir, &f.opts)
	if err != nil {
		f.t.Fatal(err)
	}
	f.DB = db
}

func (f *fixture) close() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) flush() {
	f.t.Helper()
	if err := f.Flush(context.Background()); err != nil {
		f.t.Fatal(err)
	}
}

// floats is a batch of one series.
func floats(ls labels.Labels, ts []int64, vs []float64) *model.Batch {
	return &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls), To: len(ts)}}, T: ts, V: vs}
}

func (f *fixture) append(b *model.Batch) model.AppendResult {
	f.t.Helper()
	res, err := f.Append(context.Background(), b)
	if err != nil {
		f.t.Fatal(err)
	}
	return res
}

// read returns every sample of every series that matches.
func (f *fixture) read(ms ...*labels.Matcher) map[string]*model.Columns {
	f.t.Helper()
	return f.readRange(math.MinInt64, math.MaxInt64, ms...)
}

func (f *fixture) readRange(minT, maxT int64, ms ...*labels.Matcher) map[string]*model.Columns {
	f.t.Helper()
	sel, err := f.Select(context.Background(), &model.SelectRequest{MinT: minT, MaxT: maxT, Matchers: ms})
	if err != nil {
		f.t.Fatal(err)
	}
	defer sel.Close()
	out := map[string]*model.Columns{}
	for _, s := range sel.Series {
		c := &model.Columns{}
		if err := s.Read(c); err != nil {
			f.t.Fatal(err)
		}
		if out[s.Labels().String()] != nil {
			f.t.Fatalf("series %s came twice", s.Labels())
		}
		out[s.Labels().String()] = c
	}
	return out
}

// TestEveryBitPattern carries the float64s that matter through head, log, block and
// restart.
func TestEveryBitPattern(t *testing.T) {
	bits := []uint64{
		0, 1 << 63, 1, 1<<63 | 1, 0x000fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff,
		0x7ff0000000000000, 0xfff0000000000000, 0x7ff0000000000001, 0x7ff0000000000002, 0x7ff8000000000000,
		0x7ff8000000000001, 0xfff8000000000000, 0x7fffffffffffffff, 0xffffffffffffffff, 0x3ff0000000000000, 0x3fb999999999999a,
	}
	f := newFixture(t, Options{})
	want := map[string][]uint64{}
	rng := rand.New(rand.NewPCG(1, 2))
	for k := range 40 {
		ls := labels.FromStrings("__name__", "bits", "k", fmt.Sprint(k))
		var ts []int64
		var vs []float64
		for i := range 70 {
			b := bits[(i+k)%len(bits)]
			if k%3 == 0 {
				b = bits[rng.IntN(len(bits))]
			}
			ts, vs = append(ts, int64(i*1000)+start.UnixMilli()), append(vs, math.Float64frombits(b))
			want[ls.String()] = append(want[ls.String()], b)
		}
		if res := f.append(floats(ls, ts, vs)); res.Samples != 70 || len(res.Rejected) > 0 {
			t.Fatalf("%+v", res)
		}
	}
	check := func(stage string) {
		t.Helper()
		got := f.read()
		if len(got) != len(want) {
			t.Fatalf("%s: %d series, want %d", stage, len(got), len(want))
		}
		for k, c := range got {
			for i, v := range c.V {
				if math.Float64bits(v) != want[k][i] {
					t.Fatalf("%s: %s sample %d is %016x, want %016x", stage, k, i, math.Float64bits(v), want[k][i])
				}
			}
			if len(c.V) != len(want[k]) {
				t.Fatalf("%s: %s has %d samples", stage, k, len(c.V))
			}
		}
	}
	check("head")
	f.close()
	f.open()
	check("replay")
	f.flush()
	check("block")
	f.close()
	f.open()
	check("restart")
}

// TestHistogramsAndExemplars round-trips what is not a float.
func TestHistogramsAndExemplars(t *testing.T) {
	f := newFixture(t, Options{})
	ls := labels.FromStrings("__name__", "h")
	custom := tsdbutil.GenerateTestCustomBucketsHistogram(5)
	b := &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls), HTo: 3, ETo: 2}}}
	t0 := start.UnixMilli()
	b.Hist = []model.HistogramSample{
		{T: t0, ST: t0 - 5, H: tsdbutil.GenerateTestHistogram(3)},
		{T: t0 + 1000, FH: tsdbutil.GenerateTestFloatHistogram(4)},
		{T: t0 + 2000, H: custom},
	}
	b.Exemplars = []model.Exemplar{{T: t0, Value: 1.5, Labels: model.AppendKeyLabel(nil, "trace", "x")}, {T: t0 + 1, Value: math.Copysign(0, -1)}}
	if res := f.append(b); res.Histograms != 3 || res.Exemplars != 2 || len(res.Rejected) > 0 {
		t.Fatalf("%+v", res)
	}
	check := func(stage string) {
		t.Helper()
		c := f.read()[ls.String()]
		if c == nil || len(c.Hist) != 3 || c.Hist[0].ST != t0-5 {
			t.Fatalf("%s: %+v", stage, c)
		}
		for i, want := range b.Hist {
			got := c.Hist[i]
			if want.H != nil && (got.H == nil || !got.H.Equals(want.H)) || want.FH != nil && (got.FH == nil || !got.FH.Equals(want.FH)) {
				t.Fatalf("%s: histogram %d: got %v %v", stage, i, got.H, got.FH)
			}
		}
		ex, err := f.Exemplars(context.Background(), &model.SelectRequest{MinT: t0, MaxT: t0 + 10})
		if err != nil || len(ex) != 1 || len(ex[0].Exemplars) != 2 || string(ex[0].Exemplars[0].Labels) != string(b.Exemplars[0].Labels) {
			t.Fatalf("%s: %v %v", stage, ex, err)
		}
	}
	check("head")
	f.close()
	f.open()
	check("replay")
	f.flush()
	check("block")
}

// aHistogram tells a native histogram in what compare wants; no test writes a float
// with these bits.
const aHistogram = 0xfff4 << 48

// TestModel runs random operations against a map: appends in and out of order,
// rewrites also by the other kind of sample, flushes, restarts, merges and tier moves
// change nothing that is read.
func TestModel(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			// Every other run flushes only when told to, since it also does so in two steps.
			o := Options{Retention: -1, Shards: 1 + rng.IntN(3)}
			if seed%2 == 1 {
				o.FlushInterval = math.MaxInt64
			}
			f := newFixture(t, o)
			want := map[string]map[int64]uint64{}
			day := (24 * time.Hour).Milliseconds()
			last := f.clock.Now().UnixMilli() // of the samples written
			type shardCut struct {
				cut     *Cut
				applied uint64
			}
			cuts := map[int]shardCut{}
			thaw := func() { // in either way that a cut can end
				for i, c := range cuts {
					if rng.IntN(2) == 0 {
						f.shards[i].Unfreeze(c.cut)
					} else if err := f.shards[i].Persist(context.Background(), c.cut, Mark{Applied: c.applied, Term: 1}); err != nil {
						t.Fatal(err)
					}
					delete(cuts, i)
				}
			}
			for op := range 160 {
				switch k := rng.IntN(20); {
				case k < 13:
					b := &model.Batch{}
					for range 1 + rng.IntN(4) {
						ls := labels.FromStrings("__name__", "m", "s", fmt.Sprint(rng.IntN(6)))
						bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist)}
						at := f.clock.Now().UnixMilli()
						switch rng.IntN(8) {
						case 0, 1:
							at -= rng.Int64N(60 * day)
						case 2:
							at = last
						}
						native := rng.IntN(4) == 0
						if want[ls.String()] == nil {
							want[ls.String()] = map[int64]uint64{}
						}
						for i := range 1 + rng.IntN(80) {
							last = at + int64(i)*1000
							v := rng.IntN(5)
							if native {
								b.Hist = append(b.Hist, model.HistogramSample{T: last, H: &histogram.Histogram{Count: uint64(v)}})
								want[ls.String()][last] = aHistogram + uint64(v)
								continue
							}
							b.T, b.V = append(b.T, last), append(b.V, float64(v)/10)
							want[ls.String()][last] = math.Float64bits(float64(v) / 10)
						}
						bs.To, bs.HTo = len(b.T), len(b.Hist)
						b.Series = append(b.Series, bs)
					}
					if res := f.append(b); res.Samples != len(b.T) || res.Histograms != len(b.Hist) {
						t.Fatalf("op %d: %+v of %d", op, res, len(b.T))
					}
				case k < 14:
					thaw()
					f.flush()
				case k == 14 && seed%2 == 1:
					i := rng.IntN(len(f.shards))
					if _, frozen := cuts[i]; frozen {
						thaw()
						break
					}
					applied := f.shards[i].Applied()
					cuts[i] = shardCut{f.shards[i].Freeze(), applied}
				case k == 15:
					if err := f.Maintain(context.Background()); err != nil {
						t.Fatal(err)
					}
				case k == 16:
					thaw()
					f.close()
					f.open()
				default:
					f.clock.Advance(time.Duration(rng.Int64N(40)) * time.Hour)
				}
			}
			compare(t, f.read(), want)
			thaw()
			compare(t, f.read(), want)
		})
	}
}

func compare(t *testing.T, got map[string]*model.Columns, want map[string]map[int64]uint64) {
	t.Helper()
	for k, samples := range want {
		c := got[k]
		if c == nil || len(c.T)+len(c.Hist) != len(samples) {
			t.Fatalf("%s: got %v samples, want %d", k, c, len(samples))
		}
		for i, h := range c.Hist {
			if i > 0 && c.Hist[i-1].T >= h.T {
				t.Fatalf("%s: time does not ascend at histogram %d", k, i)
			}
			if b, ok := samples[h.T]; !ok || b != aHistogram+h.H.Count {
				t.Fatalf("%s at %d: got histogram %d, want %016x (known: %v)", k, h.T, h.H.Count, b, ok)
			}
		}
		for i, ts := range c.T {
			if i > 0 && c.T[i-1] >= ts {
				t.Fatalf("%s: time does not ascend at %d", k, i)
			}
			if b, ok := samples[ts]; !ok || b != math.Float64bits(c.V[i]) {
				t.Fatalf("%s at %d: got %016x, want %016x (known: %v)", k, ts, math.Float64bits(c.V[i]), b, ok)
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d series, want %d", len(got), len(want))
	}
}

// TestLaterWins: at one timestamp the newest in the log is what is read, be it a
// float or a histogram, wherever the older one lies by then; and each replaced
// value is counted once.
func TestLaterWins(t *testing.T) {
	ls := labels.FromStrings("__name__", "m")
	t0 := start.UnixMilli()
	float := func(v float64) *model.Batch { return floats(ls, []int64{t0}, []float64{v}) }
	native := func(n uint64) *model.Batch {
		return &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls), HTo: 1}},
			Hist: []model.HistogramSample{{T: t0, H: &histogram.Histogram{Count: n}}}}
	}
	for name, batches := range map[string][]*model.Batch{
		"float, float":                   {float(1), float(2)},
		"float, other, the first again":  {float(1), float(2), float(1)},
		"float, histogram":               {float(1), native(1)},
		"histogram, float":               {native(1), float(1)},
		"float, histogram, float again":  {float(1), native(1), float(1)},
		"histogram, float, again":        {native(1), float(1), native(1)},
		"histogram, histogram":           {native(1), native(2)},
		"float, histogram, other, float": {float(1), native(1), native(2), float(2)},
	} {
		for flushes := range 1 << len(batches) {
			t.Run(fmt.Sprintf("%s/%b", name, flushes), func(t *testing.T) {
				f := newFixture(t, Options{Shards: 1})
				want := map[string]map[int64]uint64{ls.String(): {}}
				for i, b := range batches {
					f.append(b)
					if len(b.V) > 0 {
						want[ls.String()][t0] = math.Float64bits(b.V[0])
					} else {
						want[ls.String()][t0] = aHistogram + b.Hist[0].H.Count
					}
					if flushes>>i&1 != 0 {
						f.flush()
					}
					compare(t, f.read(), want)
				}
				f.flush()
				f.clock.Advance(60 * 24 * time.Hour)
				if err := f.Maintain(context.Background()); err != nil {
					t.Fatal(err)
				}
				compare(t, f.read(), want)
				// The way there and back may look like a retry once the blocks are merged.
				got, most := f.Stats().Overwritten, int64(len(batches)-1)
				if got > most || got < 1 || got < most && !strings.Contains(name, "again") {
					t.Errorf("%d values counted as overwritten", got)
				}
			})
		}
	}
}

// asked is a context that tells when it is waited for.
type asked struct {
	context.Context
	tell func()
}

func (a *asked) Done() <-chan struct{} {
	a.tell()
	return a.Context.Done()
}

// TestFlushGivesUp: a flush that waits for another, which its disk holds up, ends with its context.
func TestFlushGivesUp(t *testing.T) {
	in, out := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f := newFixture(t, Options{Failpoint: func(name string) {
		if name == "flush-start" {
			once.Do(func() {
				close(in)
				<-out
			})
		}
	}})
	f.append(floats(labels.FromStrings("__name__", "m"), []int64{start.UnixMilli()}, []float64{1}))
	first := make(chan error)
	go func() { first <- f.Flush(context.Background()) }()
	<-in
	ctx, cancel := context.WithCancel(context.Background())
	if err := f.Flush(&asked{Context: ctx, tell: cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(out)
	if err := <-first; err != nil {
		t.Error(err)
	}
}
