package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
)

func equalName(name string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, commonmodel.MetricNameLabel, name)
}

func (f *fixture) subscribe(req *model.FeedRequest) model.Feed {
	f.t.Helper()
	feed, err := f.Subscribe(context.Background(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(feed.Close)
	return feed
}

// state is what a reader of a feed knows: by series and timestamp the bits of a float,
// or aHistogram plus a count.
type state map[string]map[int64]uint64

func (s state) set(ls labels.Labels, t int64, bits uint64) {
	m := s[ls.String()]
	if m == nil {
		m = map[int64]uint64{}
		s[ls.String()] = m
	}
	m[t] = bits
}

func (s state) take(t *testing.T, names map[uint32]labels.Labels, b *model.FeedBatch) {
	t.Helper()
	for _, d := range b.Series {
		if _, told := names[d.ID]; told {
			t.Fatalf("series %d is told twice", d.ID)
		}
		names[d.ID] = d.Labels
	}
	for _, x := range b.Samples {
		ls, told := names[x.Series]
		switch {
		case !told:
			t.Fatalf("series %d was never told", x.Series)
		case x.Hist != nil:
			s.set(ls, x.T, aHistogram+x.Hist.H.Count)
		default:
			s.set(ls, x.T, math.Float64bits(x.V))
		}
	}
}

// TestFeedAndSelect: a Select made after Subscribe and the feed on top of it are what
// the storage holds, at whatever moment the subscription begins, and while series
// leave the head and come back.
func TestFeedAndSelect(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 9))
			f := newFixture(t, Options{Retention: -1, Shards: 1 + rng.IntN(3), FlushInterval: math.MaxInt64})
			write := func() {
				b := &model.Batch{}
				for range 1 + rng.IntN(5) {
					ls := labels.FromStrings("__name__", []string{"m", "n"}[rng.IntN(2)], "s", fmt.Sprint(rng.IntN(8)))
					bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist)}
					for range 1 + rng.IntN(4) {
						at := start.UnixMilli() + rng.Int64N(50)*1000
						if rng.IntN(5) == 0 {
							b.Hist = append(b.Hist, model.HistogramSample{T: at, H: &histogram.Histogram{Count: uint64(rng.IntN(3))}})
							continue
						}
						v := []float64{0, 1, math.Copysign(0, -1), math.NaN(), math.Float64frombits(0x7ff0000000000002)}[rng.IntN(5)]
						b.T, b.V = append(b.T, at), append(b.V, v)
					}
					bs.To, bs.HTo = len(b.T), len(b.Hist)
					b.Series = append(b.Series, bs)
				}
				if _, err := f.Append(context.Background(), b); err != nil {
					t.Error(err)
				}
			}
			for range rng.IntN(20) {
				write()
			}
			// The writer goes on while the subscription is made.
			var wg sync.WaitGroup
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := range 60 {
					write()
					if i%20 == 10 {
						f.flush()
						f.flush()
						f.flush()
						if err := f.Maintain(context.Background()); err != nil {
							t.Error(err)
						}
					}
				}
			}()
			// One that need not be woken soon is given what many entries brought at once.
			feed := f.subscribe(&model.FeedRequest{Matchers: []*labels.Matcher{equalName("m")}, WakeAt: []int{0, 1 << 15}[seed%2]})
			if seed%4 > 1 { // others that are as patient, or are not
				f.subscribe(&model.FeedRequest{WakeAt: []int{1 << 15, 0}[seed%2]})
			}
			got := state{}
			for name, c := range f.read(equalName("m")) {
				got[name] = map[int64]uint64{}
				for i, at := range c.T {
					got[name][at] = math.Float64bits(c.V[i])
				}
				for _, h := range c.Hist {
					got[name][h.T] = aHistogram + h.H.Count
				}
			}
			names := map[uint32]labels.Labels{}
			var b model.FeedBatch
			poll := func() {
				if err := feed.Poll(&b); err != nil || b.Lost > 0 || b.Reset {
					t.Fatal(err, b.Lost, b.Reset)
				}
				got.take(t, names, &b)
			}
			for range 30 {
				poll()
			}
			wg.Wait()
			poll()
			compare(t, f.read(equalName("m")), got)
			for i, a := range b.Applied {
				if want := f.shards[i].Applied(); a.Index != want {
					t.Errorf("shard %d: the feed has come to %d of %d", i, a.Index, want)
				}
			}
		})
	}
}

// TestFeedOrder: what one series gets comes in order of application, retries left out.
func TestFeedOrder(t *testing.T) {
	f := newFixture(t, Options{Retention: -1})
	ls := labels.FromStrings("__name__", "m")
	feed := f.subscribe(&model.FeedRequest{})
	t0 := start.UnixMilli()
	f.append(floats(ls, []int64{t0, t0 + 10}, []float64{1, 2}))
	f.append(floats(ls, []int64{t0, t0 + 10}, []float64{1, 2})) // a retry
	f.append(floats(ls, []int64{t0 + 5, t0 + 10, t0 - 5}, []float64{3, 4, 5}))
	var b model.FeedBatch
	if err := feed.Next(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, x := range b.Samples {
		got = append(got, x.T-t0, int64(x.V))
	}
	if want := "[0 1 10 2 5 3 10 4 -5 5]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(b.Series) != 1 || !labels.Equal(b.Series[0].Labels, ls) || b.Cut != math.MinInt64 {
		t.Errorf("%+v", b)
	}
	if err := feed.Poll(&b); err != nil || !b.Empty() {
		t.Errorf("%+v, %v", b, err)
	}
}

// TestFeedThatNobodyReads: its buffer is bounded, what it lost is counted, and other
// feeds get all.
func TestFeedThatNobodyReads(t *testing.T) {
	f := newFixture(t, Options{Retention: -1})
	woken := 0
	slow := f.subscribe(&model.FeedRequest{Buffer: 10, WakeAt: 1000, Wake: func() { woken++ }})
	fast := f.subscribe(&model.FeedRequest{})
	ls := labels.FromStrings("__name__", "m")
	for i := range int64(25) {
		f.append(floats(ls, []int64{start.UnixMilli() + i}, []float64{1}))
	}
	var b model.FeedBatch
	if err := slow.Poll(&b); err != nil || len(b.Samples) != 10 || b.Lost != 15 || woken != 1 {
		t.Errorf("%d samples, %d lost, %d wakes, %v", len(b.Samples), b.Lost, woken, err)
	}
	if err := fast.Poll(&b); err != nil || len(b.Samples) != 25 || b.Lost != 0 {
		t.Errorf("%d samples, %d lost, %v", len(b.Samples), b.Lost, err)
	}
	f.append(floats(ls, []int64{start.UnixMilli() + 99}, []float64{1}))
	if err := slow.Poll(&b); err != nil || len(b.Samples) != 1 || b.Lost != 0 {
		t.Errorf("afterwards: %d samples, %d lost, %v", len(b.Samples), b.Lost, err)
	}
}

// TestPatientFeed: a feed that need not be woken soon has, whenever it is polled, all that was
// applied before and nothing from before it began, in order; others don't wait with it; and it
// is woken for many samples though nobody polls.
func TestPatientFeed(t *testing.T) {
	f := newFixture(t, Options{Retention: -1, Shards: 2})
	const wakeAt = 1 << 14
	woken := 0
	ls := []labels.Labels{labels.FromStrings("__name__", "m", "s", "1"), labels.FromStrings("__name__", "m", "s", "2")}
	next := map[string]int64{}
	write := func(n int) {
		for i := range ls {
			b := &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls[i]), To: n}}}
			for range n {
				next[ls[i].String()]++
				b.T, b.V = append(b.T, start.UnixMilli()+next[ls[i].String()]), append(b.V, 1)
			}
			f.append(b)
		}
	}
	var b model.FeedBatch
	check := func(feed model.Feed, names map[uint32]string, from, want int) {
		t.Helper()
		if err := feed.Poll(&b); err != nil || b.Lost > 0 || b.Reset || len(b.Samples) != 2*want {
			t.Fatalf("%d samples, want %d of each: %d lost, %v, %v", len(b.Samples), want, b.Lost, b.Reset, err)
		}
		for _, d := range b.Series {
			names[d.ID] = d.Labels.String()
		}
		last := map[string]int64{}
		for _, x := range b.Samples {
			name := names[x.Series]
			if last[name]++; x.T != start.UnixMilli()+int64(from)+last[name] {
				t.Fatalf("sample %d of %q is of %d, after %d", last[name], name, x.T-start.UnixMilli(), from)
			}
		}
	}
	patient := func(wake func()) model.Feed { return f.subscribe(&model.FeedRequest{WakeAt: wakeAt, Wake: wake}) }
	write(3)
	first := patient(func() { woken++ })
	write(2)
	second := patient(nil)
	write(5)
	one, two, three := map[uint32]string{}, map[uint32]string{}, map[uint32]string{}
	check(first, one, 3, 7)
	check(second, two, 5, 5)
	write(1)
	urgent := 0
	third := f.subscribe(&model.FeedRequest{Wake: func() { urgent++ }})
	write(4)
	if urgent == 0 {
		t.Error("the one that is not patient was not woken")
	}
	check(third, three, 11, 4)
	third.Close()
	write(2)
	second.Close()
	check(first, one, 10, 7)
	for i := 0; woken == 0 && i < 2*wakeAt; i += 200 {
		write(100)
	}
	if woken != 1 {
		t.Errorf("woken %d times", woken)
	}
}

// TestFeedEnds: a limit, a context, Close and the engine end a feed, and give back what
// it held.
func TestFeedEnds(t *testing.T) {
	f := newFixture(t, Options{Retention: -1})
	one, two, three := labels.FromStrings("__name__", "m", "s", "1"), labels.FromStrings("__name__", "m", "s", "2"), labels.FromStrings("__name__", "m", "s", "3")
	at := []int64{start.UnixMilli()}
	f.append(floats(one, at, []float64{1}))
	f.append(floats(two, at, []float64{1}))
	var limit *model.LimitError
	if _, err := f.Subscribe(context.Background(), &model.FeedRequest{MaxSeries: 1}); !errors.As(err, &limit) {
		t.Errorf("got %v", err)
	}
	feed := f.subscribe(&model.FeedRequest{MaxSeries: 2})
	f.append(floats(three, at, []float64{1}))
	var b model.FeedBatch
	if err := feed.Next(context.Background(), &b); !errors.As(err, &limit) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	other, err := f.Subscribe(ctx, &model.FeedRequest{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := other.Next(context.Background(), &b); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	feed.Close()
	feed.Close()
	if n := f.Stats().Feeds; n > 1 { // the one of the ended context may be on its way out
		t.Errorf("%d feeds are open", n)
	}
	last := f.subscribe(&model.FeedRequest{})
	f.close()
	if err := last.Next(context.Background(), &b); !errors.Is(err, model.ErrClosed) {
		t.Errorf("got %v", err)
	}
	f.open()
}

// TestFeedTellsOfInstall: when another replica's state takes the place of ours, a feed
// says so and goes on with the new series.
func TestFeedTellsOfInstall(t *testing.T) {
	from, to := newFixture(t, Options{Retention: -1, Shards: 1}), newFixture(t, Options{Retention: -1, Shards: 1})
	at := start.UnixMilli()
	ls := labels.FromStrings("__name__", "m")
	for i := range int64(5) {
		from.append(floats(labels.FromStrings("__name__", "other", "i", fmt.Sprint(i)), []int64{at}, []float64{1}))
		from.append(floats(ls, []int64{at + i}, []float64{float64(i)}))
	}
	from.flush()
	to.append(floats(ls, []int64{at}, []float64{9}))
	feed := to.subscribe(&model.FeedRequest{Matchers: []*labels.Matcher{equalName("m")}})
	offer, err := from.shards[0].Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(_ context.Context, name string, off int64, n int, use func([]byte) error) error {
		b, err := from.shards[0].ReadBlock(nil, name, off, n)
		return errors.Join(err, use(b))
	}
	if err := to.shards[0].Install(context.Background(), offer.Data, Mark{Applied: offer.Manifest.Applied, Term: 1}, fetch); err != nil {
		t.Fatal(err)
	}
	if err := offer.Release(); err != nil {
		t.Fatal(err)
	}
	var b model.FeedBatch
	if err := feed.Next(context.Background(), &b); err != nil || !b.Reset {
		t.Fatalf("%+v, %v", b, err)
	}
	if _, err := to.shards[0].Apply(offer.Manifest.Applied+1, payloadOf(t, to, ls, at+100)); err != nil {
		t.Fatal(err)
	}
	if err := feed.Next(context.Background(), &b); err != nil || len(b.Samples) != 1 || b.Samples[0].T != at+100 || !labels.Equal(b.Series[0].Labels, ls) {
		t.Errorf("%+v, %v", b, err)
	}
	// The log of the folder does not go with the state now; open it as Install's caller leaves it.
	if err := to.log.Reset(0, offer.Manifest.Applied); err != nil {
		t.Fatal(err)
	}
}

// payloadOf is the log entry of one sample.
func payloadOf(t *testing.T, f *fixture, ls labels.Labels, at int64) []byte {
	t.Helper()
	a := f.newAppender()
	b := floats(ls, []int64{at}, []float64{1})
	key := b.Series[0].Key
	a.items[0] = append(a.items[0], shard.Item{Hash: model.HashKey(key), Key: key})
	lim := f.limits()
	var res model.AppendResult
	f.encode(a, b, &lim, &res)
	return JoinPayload(nil, a.ops[0].Bytes(&lim))
}

// BenchmarkApplied appends scrapes of 10,000 series, with as many feeds as the name
// says, of 10 series each.
func BenchmarkApplied(b *testing.B) {
	for _, feeds := range []int{0, 100, 1000} {
		b.Run(fmt.Sprint("feeds=", feeds), func(b *testing.B) { benchApplied(b, feeds) })
	}
}

func benchApplied(b *testing.B, feeds int) {
	const series = 10_000
	db, err := Open(b.TempDir(), &Options{Retention: -1, HeadBytes: 1 << 40, MinFreeBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	var open []model.Feed
	for i := range feeds {
		f, err := db.Subscribe(context.Background(), &model.FeedRequest{WakeAt: 1 << 15, Matchers: []*labels.Matcher{
			equalName(fmt.Sprint("metric_", i%(series/10)))}})
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		open = append(open, f)
	}
	var got model.FeedBatch
	var batch model.Batch
	for i := range series {
		key := model.AppendKey(nil, labels.FromStrings("__name__", fmt.Sprint("metric_", i/10), "instance", fmt.Sprint("host-", i%10), "job", "node"))
		batch.Series = append(batch.Series, model.BatchSeries{Key: key, From: i, To: i + 1})
		batch.T, batch.V = append(batch.T, 0), append(batch.V, 0)
	}
	at := start.UnixMilli()
	b.ResetTimer()
	for n := 0; b.Loop(); n++ {
		for i := n % 10; i < len(open); i += 10 { // each is read after ten scrapes
			if err := open[i].Poll(&got); err != nil || got.Lost > 0 {
				b.Fatal(err, got.Lost)
			}
		}
		at += 10_000
		for i := range batch.T {
			batch.T[i], batch.V[i] = at, float64(i)
		}
		if _, err := db.Append(context.Background(), &batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/series, "ns/sample")
}
