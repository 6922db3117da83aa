package live

import (
	"context"
	"fmt"
	"math"
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
	q, err := query.New(f.store, &query.Options{Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	if o == nil {
		o = &Options{}
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
