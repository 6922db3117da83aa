package live

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.UnixMilli(1_700_000_000_000)

// fixture is a hub over a store in memory, with a clock that the test moves.
type fixture struct {
	*Hub
	t     *testing.T
	store *querytest.Store
	clock *clock.Manual
	wake  chan struct{}
}

func newFixture(t *testing.T, o *Options) *fixture {
	t.Helper()
	f := &fixture{t: t, store: querytest.New(), clock: clock.NewManual(start), wake: make(chan struct{}, 1)}
	if o == nil {
		o = &Options{}
	}
	var reader model.Reader = f.store
	if o.ReplicaLabel != "" {
		reader = query.NewPairReader(f.store, o.ReplicaLabel)
	}
	q, err := query.New(reader, &query.Options{Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	o.Clock = f.clock
	if f.Hub, err = New(f.store, f.store, q, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) subscribe(req Request) *Subscription {
	f.t.Helper()
	req.Wake = func() {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	s, err := f.Subscribe(context.Background(), req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.Close)
	return s
}

// until polls until the step at t has come, waiting for wakes.
func (f *fixture) until(s *Subscription, t int64) (evs []Event) {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		had := len(evs)
		evs = s.Poll(evs)
		for _, ev := range evs[had:] {
			if ev.Kind == DataKind && ev.Step.T >= t || ev.Kind == ErrorKind && ev.T >= t {
				return evs
			}
		}
		if len(evs) > had {
			continue
		}
		if err := s.Err(); err != nil {
			f.t.Fatal(err)
		}
		select {
		case <-f.wake:
		case <-deadline:
			f.t.Fatalf("the step at %d does not come; there are %v", t, evs)
		}
	}
}

func (f *fixture) put(ls labels.Labels, t int64, v float64) {
	f.t.Helper()
	b := &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls), To: 1}}, T: []int64{t}, V: []float64{v}}
	if _, err := f.store.Append(context.Background(), b); err != nil {
		f.t.Fatal(err)
	}
}

// TestSteps: each step comes once, in order, equal to an instant query.
func TestSteps(t *testing.T) {
	f := newFixture(t, nil)
	s := f.subscribe(Request{Query: `up{b="2",a="1"}  + 0`, Backfill: 10 * time.Second})
	if got := s.Info(); got.Query != `up{a="1",b="2"} + 0` || got.Step != time.Second {
		t.Fatalf("%+v", got)
	}
	now := start.UnixMilli()
	var want []int64
	for i := int64(-10); i <= 5; i++ {
		want = append(want, now+i*1000)
	}
	for i := range int64(6) {
		f.put(labels.FromStrings("__name__", "up", "a", "1", "b", "2", "i", fmt.Sprint(i%2)), now+i*1000, float64(i))
	}
	var evs []Event
	evs = append(evs, f.until(s, now-1000)...)
	for i := range int64(6) {
		f.clock.Advance(time.Second)
		evs = append(evs, f.until(s, now+i*1000)...)
	}
	var got []int64
	names := map[uint32]labels.Labels{}
	for _, ev := range evs {
		switch ev.Kind {
		case SeriesKind:
			for _, d := range ev.Series {
				names[d.ID] = d.Labels
			}
		case DataKind:
			got = append(got, ev.Step.T)
			res, err := f.engine.Instant(context.Background(), s.Info().Query, time.UnixMilli(ev.Step.T), query.QueryOptions{})
			if err != nil {
				t.Fatal(err)
			}
			vec, err := res.Vector()
			if err != nil || len(vec) != len(ev.Step.Values) {
				t.Fatalf("at %d: %v, want %v (%v)", ev.Step.T, ev.Step.Values, vec, err)
			}
			for _, want := range vec {
				found := false
				for _, v := range ev.Step.Values {
					found = found || labels.Equal(names[v.Series], want.Metric) && math.Float64bits(v.V) == math.Float64bits(want.F)
				}
				if !found {
					t.Errorf("at %d: %v lacks %v", ev.Step.T, ev.Step.Values, want)
				}
			}
			res.Close()
		default:
			t.Errorf("unexpected %+v", ev)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got steps %v, want %v", got, want)
	}
}

// TestGivesBack: what a subscription held is given back, its evaluation after a while.
func TestGivesBack(t *testing.T) {
	f := newFixture(t, &Options{Linger: 5 * time.Second})
	var subs []*Subscription
	for i := range 200 {
		for range 5 {
			subs = append(subs, f.subscribe(Request{Query: fmt.Sprintf("up{i=%q}", fmt.Sprint(i%50)), Samples: i%2 == 0, Backfill: time.Second}))
		}
	}
	f.until(f.subscribe(Request{Query: "up", Backfill: time.Second}), start.UnixMilli()-1000)
	if s := f.Stats(); s.Queries != 51 || s.Subscribers != len(subs)+1 {
		t.Errorf("%+v", s)
	}
	for _, s := range subs {
		s.Close()
		s.Close()
		if s.Err() == nil || len(s.Poll(nil)) > 0 {
			t.Error("a closed subscription goes on")
		}
	}
	for deadline := time.Now().Add(20 * time.Second); f.Stats().Queries > 1 || f.store.Feeds() > 1; {
		if time.Now().After(deadline) {
			t.Fatalf("%+v, %d feeds", f.Stats(), f.store.Feeds())
		}
		f.clock.Advance(time.Second)
		time.Sleep(time.Millisecond) // the workers see the new time whenever they come to it
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if n := f.store.Feeds(); n > 0 {
		t.Errorf("%d feeds are open", n)
	}
	if n := f.store.Open(); n > 0 {
		t.Errorf("%d selections are open", n)
	}
	if _, err := f.Subscribe(context.Background(), Request{Query: "up"}); err != ErrClosed {
		t.Errorf("got %v", err)
	}
}

// TestLateKick: a feed's wake that comes when its evaluation has ended starts nothing.
func TestLateKick(t *testing.T) {
	for _, req := range []Request{{Query: "up"}, {Query: "up", Samples: true}, {Query: "up + 1"}} {
		f := newFixture(t, &Options{Linger: 5 * time.Second, Delay: -1})
		s := f.subscribe(req)
		f.put(labels.FromStrings("__name__", "up"), start.UnixMilli()+1, 1)
		f.clock.Advance(time.Second)
		for !slices.ContainsFunc(s.Poll(nil), func(ev Event) bool { return ev.Kind == DataKind }) {
			<-f.wake
		}
		e := s.e
		s.Close()
		busy := func() bool { // a task has one run at a time
			f.sched.mu.Lock()
			defer f.sched.mu.Unlock()
			return e.task.running || e.task.queued
		}
		for deadline := time.Now().Add(20 * time.Second); f.Stats().Queries > 0 || f.store.Feeds() > 0 || busy(); {
			if time.Now().After(deadline) {
				t.Fatalf("%+v, %d feeds", f.Stats(), f.store.Feeds())
			}
			f.clock.Advance(time.Second)
			time.Sleep(time.Millisecond)
		}
		if next := e.run(context.Background(), f.clock.Now()); !next.IsZero() || f.store.Feeds() > 0 {
			t.Errorf("%+v: it goes on at %s with %d feeds", req, next, f.store.Feeds())
		}
	}
}

// TestCloseWakes: subscribers of a hub that closes learn of it.
func TestCloseWakes(t *testing.T) {
	f := newFixture(t, nil)
	s := f.subscribe(Request{Query: "up"})
	for len(s.Poll(nil)) > 0 {
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	<-f.wake
	if s.Err() != ErrClosed {
		t.Errorf("got %v", s.Err())
	}
}

// TestStaleAndErrors: a series that ends is told, and so is an evaluation that fails,
// which mends by itself.
func TestStaleAndErrors(t *testing.T) {
	for _, q := range []string{`up`, `up or vector(1)`} {
		f := newFixture(t, &Options{Delay: -1})
		s := f.subscribe(Request{Query: q})
		now := start.UnixMilli()
		ls := labels.FromStrings("__name__", "up", "a", "1")
		tick := func() []Event {
			now += 1000
			f.clock.Advance(time.Second)
			return f.until(s, now)
		}
		f.put(ls, now+1, 1)
		if evs := tick(); len(evs) != 2 || len(evs[1].Step.Values) == 0 {
			t.Fatalf("%s: %+v", q, evs)
		}
		f.put(ls, now+1, math.Float64frombits(0x7ff0000000000002))
		evs := tick()
		if last := f.after(s, evs); last.Kind != StaleKind || last.T != now || len(last.Stale) != 1 {
			t.Errorf("%s: %+v", q, last)
		}
		f.store.SetError(model.ErrUnavailable)
		f.store.LoseFeeds(1)
		evs = tick()
		if last := evs[len(evs)-1]; last.Kind != ErrorKind || query.KindOf(last.Err) != query.Unavailable {
			t.Errorf("%s: %+v", q, last)
		}
		f.store.SetError(nil)
		f.put(ls, now+1, 5)
		evs = tick()
		if last := evs[len(evs)-1]; last.Kind != DataKind || !hasValue(last.Step, 5) {
			t.Errorf("%s: %+v", q, last)
		}
	}
}

func hasValue(s *Step, v float64) bool {
	for _, x := range s.Values {
		if x.V == v {
			return true
		}
	}
	return false
}

// after returns the event that follows those, or the last of them.
func (f *fixture) after(s *Subscription, evs []Event) Event {
	evs = s.Poll(evs)
	return evs[len(evs)-1]
}

// TestLostSamples: an evaluation whose feed has lost samples reads them from the storage.
func TestLostSamples(t *testing.T) {
	f := newFixture(t, &Options{Delay: -1})
	s := f.subscribe(Request{Query: `sum(up)`})
	now := start.UnixMilli()
	for i := range int64(10) {
		if i == 5 {
			f.store.LoseFeeds(1) // and what is put until the next step
		}
		f.put(labels.FromStrings("__name__", "up", "i", fmt.Sprint(i)), now+1, float64(i))
		now += 1000
		f.clock.Advance(time.Second)
		evs := f.until(s, now)
		want := float64(i * (i + 1) / 2)
		if last := evs[len(evs)-1]; last.Kind != DataKind || !hasValue(last.Step, want) {
			t.Errorf("step %d: %+v, want %v", i, last.Step, want)
		}
	}
}

// slowStore takes time, by the test's clock, to answer.
type slowStore struct {
	*querytest.Store
	clock *clock.Manual
	takes time.Duration
	once  chan time.Duration // what single answers take besides, in turn
}

func (s *slowStore) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	var takes time.Duration
	select {
	case takes = <-s.once:
	default:
	}
	if s.clock.Now().Before(start.Add(2 * time.Minute)) { // else it would run away from who reads
		takes += s.takes
	}
	s.clock.Advance(takes)
	return s.Store.SelectAll(ctx, reqs)
}

// slowDown makes the hub's queries take time.
func (f *fixture) slowDown(takes time.Duration) *slowStore {
	f.t.Helper()
	store := &slowStore{Store: f.store, clock: f.clock, takes: takes, once: make(chan time.Duration, 8)}
	q, err := query.New(store, &query.Options{Clock: f.clock})
	if err != nil {
		f.t.Fatal(err)
	}
	f.engine = q
	return store
}

// TestSlowEvaluation: where steps are evaluated together in no more time than one of them,
// none is lost, and where each takes longer than they are apart, those that there is no
// time for are told as dropped.
func TestSlowEvaluation(t *testing.T) {
	for q, skips := range map[string]bool{`up + 1`: false, `up + (up @ end())`: true} {
		t.Run(q, func(t *testing.T) {
			f := newFixture(t, &Options{Delay: -1})
			f.slowDown(1700 * time.Millisecond)
			s := f.subscribe(Request{Query: q})
			f.clock.Advance(time.Second)
			dropped := inTurn(t, f.until(s, start.UnixMilli()+100_000), time.Second, start.UnixMilli()+1000)
			if (dropped > 0) != skips {
				t.Errorf("%d steps were dropped", dropped)
			}
		})
	}
}

// TestHiccup: an evaluation that once takes long makes all steps good.
func TestHiccup(t *testing.T) {
	f := newFixture(t, &Options{Delay: -1})
	store := f.slowDown(0)
	const step = 100 * time.Millisecond
	s := f.subscribe(Request{Query: `up + 1`, Step: step})
	at := start
	for _, takes := range []time.Duration{0, 3 * time.Second, 0, 300 * time.Millisecond, 0} {
		store.once <- takes
		f.clock.Advance(step)
		next := at.Add(step)
		at = next.Add(takes)
		if n := inTurn(t, f.until(s, at.UnixMilli()), step, next.UnixMilli()); n > 0 {
			t.Fatalf("%d steps were dropped where one took %s", n, takes)
		}
	}
}

// TestOutage: steps that can't be evaluated for a while, since the storage can't be read,
// come when it can, as first revisions, in order; that they fail is told.
func TestOutage(t *testing.T) {
	for _, q := range []string{`up`, `up + 1`} {
		f := newFixture(t, &Options{Delay: -1})
		store := f.slowDown(0)
		const step = 100 * time.Millisecond
		s := f.subscribe(Request{Query: q, Step: step})
		ls := labels.FromStrings("__name__", "up")
		f.clock.Advance(step)
		evs := f.until(s, f.clock.Now().UnixMilli())
		f.store.SetError(model.ErrUnavailable)
		f.store.LoseFeeds(1) // so that it must be read
		f.put(ls, f.clock.Now().UnixMilli(), 7)
		fails := 0
		for range 6 {
			store.once <- 2500 * time.Millisecond
			f.clock.Advance(step)
			f.clock.Advance(time.Second)
			some := f.until(s, f.clock.Now().UnixMilli()-1000)
			fails += len(some)
		}
		f.store.SetError(nil)
		f.clock.Advance(time.Second)
		now := f.clock.Now().UnixMilli() / 100 * 100
		for _, ev := range f.until(s, now) {
			if ev.Kind == DataKind && (len(ev.Step.Values) != 1 || ev.Step.Rev > 0 && ev.Step.T > start.UnixMilli()+100) {
				t.Fatalf("%s: %+v", q, ev.Step)
			}
			if ev.Kind != ErrorKind && ev.Kind != SeriesKind && (ev.Kind != DataKind || ev.Step.Rev == 0) {
				evs = append(evs, ev)
			}
		}
		if n := inTurn(t, evs, step, start.UnixMilli()+100); n > 0 || fails == 0 {
			t.Errorf("%s: %d steps were dropped, %d failures told", q, n, fails)
		}
	}
}

// TestSamplesWaitForTheStorage: who resumes samples while the storage can't be read has
// them once it can.
func TestSamplesWaitForTheStorage(t *testing.T) {
	f := newFixture(t, nil)
	at := start.UnixMilli() - 3000
	f.put(labels.FromStrings("__name__", "up"), at, 1)
	f.store.SetError(model.ErrUnavailable)
	s := f.subscribe(Request{Query: "up", Samples: true, After: at - 1000})
	for range 3 {
		if evs := s.Poll(nil); len(evs) > 0 {
			t.Fatalf("%+v", evs)
		}
		f.clock.Advance(time.Second)
	}
	if s.Since() != at-1000 {
		t.Errorf("it would go on after %d", s.Since())
	}
	f.store.SetError(nil)
	for got := false; !got; {
		f.clock.Advance(time.Second)
		for _, ev := range s.Poll(nil) {
			if ev.Kind != SeriesKind && (ev.Kind != DataKind || ev.Step.T != at) {
				t.Fatalf("%+v", ev)
			}
			got = got || ev.Kind == DataKind
		}
		time.Sleep(time.Millisecond) // the workers see the new time whenever they come to it
	}
}

// TestBusyMachine: an evaluation of which each takes longer than its steps are apart, for a
// second or two, makes all of them good.
func TestBusyMachine(t *testing.T) {
	f := newFixture(t, &Options{Delay: -1})
	store := f.slowDown(0)
	const step = 100 * time.Millisecond
	s := f.subscribe(Request{Query: `up + 1`, Step: step})
	f.clock.Advance(step)
	next := start.Add(step)
	inTurn(t, f.until(s, next.UnixMilli()), step, next.UnixMilli())
	for _, ms := range []time.Duration{150, 300, 500, 800, 1100} {
		store.once <- ms * time.Millisecond
	}
	f.clock.Advance(step)
	end := next.Add(step + 2850*time.Millisecond)
	if n := inTurn(t, f.until(s, end.Truncate(step).UnixMilli()), step, next.Add(step).UnixMilli()); n > 0 {
		t.Errorf("%d steps were dropped", n)
	}
}

// inTurn fails unless every step from next on comes, in order, or is told as dropped,
// and returns how many were.
func inTurn(t *testing.T, evs []Event, step time.Duration, next int64) (dropped int64) {
	t.Helper()
	every := step.Milliseconds()
	for _, ev := range evs {
		switch ev.Kind {
		case DataKind:
			if ev.Step.T != next {
				t.Fatalf("step %d, want %d", ev.Step.T, next)
			}
			next += every
		case DroppedKind:
			d := ev.Dropped
			if d.From != next || d.To != d.From+(d.Count-1)*every {
				t.Fatalf("%+v; the next step was %d", d, next)
			}
			dropped += d.Count
			next = d.To + every
		default:
			t.Fatalf("%+v", ev)
		}
	}
	return dropped
}

// TestPair: what a pair of senders says of one series is one series to a live query too,
// whether they were there before it or come later.
func TestPair(t *testing.T) {
	f := newFixture(t, &Options{ReplicaLabel: "replica"})
	s := f.subscribe(Request{Query: `count by (job) (m)`})
	at := start.UnixMilli()
	for i := range int64(3) {
		for _, replica := range []string{"a", "b"} {
			f.put(labels.FromStrings("__name__", "m", "job", "x", "replica", replica), at+i*1000, 1)
		}
		f.clock.Advance(time.Second)
		for _, ev := range f.until(s, at+i*1000) {
			if ev.Kind == DataKind && (len(ev.Step.Values) != 1 || ev.Step.Values[0].V != 1) {
				t.Fatalf("step %d: %+v, want one series", ev.Step.T, ev.Step.Values)
			}
		}
	}
	if got := s.Info().Mode; got != "stepped" {
		t.Errorf("mode %q, want stepped", got)
	}
}
