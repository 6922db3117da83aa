package query_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t interface{ Fatal(...any) }, s *querytest.Store, n, samples int) {
	var b model.Batch
	for i := range n {
		bs := model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i))), From: len(b.T)}
		for j := range samples {
			b.T, b.V = append(b.T, int64(j)*1000), append(b.V, float64(j))
		}
		bs.To = len(b.T)
		b.Series = append(b.Series, bs)
	}
	if _, err := s.Append(context.Background(), &b); err != nil {
		t.Fatal(err)
	}
}

func engine(t *testing.T, r model.Reader, o *query.Options) *query.Engine {
	t.Helper()
	e, err := query.New(r, o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestLimitsAndKinds(t *testing.T) {
	s := querytest.New()
	load(t, s, 5, 100)
	at := time.Unix(99, 0)
	for _, c := range []struct {
		expr string
		o    query.Options
		kind query.Kind
		text string
	}{
		{"m{", query.Options{}, query.BadData, "parse error"},
		{"limitk(1, m)", query.Options{}, query.BadData, "experimental"},
		{"m", query.Options{MaxSeries: 4}, query.Execution, "limit of 4 series"},
		{"m", query.Options{MaxSamples: 4}, query.Execution, "samples"},
		{"m + on() m", query.Options{}, query.Execution, "many-to-many"},
	} {
		_, err := engine(t, s, &c.o).Instant(context.Background(), c.expr, at, query.QueryOptions{})
		if err == nil || query.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v", c.expr, query.KindOf(err), err)
		}
	}
	if s.Open() != 0 {
		t.Error("selections left open")
	}
	if _, err := query.New(nil, nil); !errors.Is(err, query.ErrNoReader) {
		t.Error(err)
	}
	if _, err := query.New(s, &query.Options{Timeout: -1, MaxConcurrent: -1}); err == nil || strings.Count(err.Error(), "must be positive") != 2 {
		t.Error(err)
	}
}

func TestResultLimit(t *testing.T) {
	s := querytest.New()
	load(t, s, 5, 100)
	e := engine(t, s, nil)
	res, err := e.Range(context.Background(), "m", time.Unix(0, 0), time.Unix(99, 0), time.Second, query.QueryOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Close()
	if m := res.Value.(promql.Matrix); len(m) != 2 || !res.Truncated || len(m[0].Floats) != 100 {
		t.Errorf("%v", m)
	}
	if _, err := e.Range(context.Background(), "m", time.Unix(0, 0), time.Unix(1, 0), 0, query.QueryOptions{}); query.KindOf(err) != query.BadData {
		t.Error(err)
	}
}

// gate holds each Select until it is let through.
type gate struct {
	*querytest.Store
	in, out chan struct{}
}

func (g *gate) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	g.in <- struct{}{}
	select {
	case <-g.out:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return g.Store.SelectAll(ctx, reqs)
}

// TestQueue: one query runs, one waits, a third is refused; a waiting query can be cancelled.
func TestQueue(t *testing.T) {
	g := &gate{querytest.New(), make(chan struct{}), make(chan struct{})}
	c := clock.NewManual(time.Unix(1000, 0))
	var log bytes.Buffer
	e := engine(t, g, &query.Options{MaxConcurrent: 1, MaxQueued: 1, Clock: c, SlowQuery: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	run := func(ctx context.Context, client string) chan error {
		done := make(chan error, 1)
		go func() {
			res, err := e.Instant(ctx, "m", time.Unix(0, 0), query.QueryOptions{Client: client})
			if err == nil {
				res.Close()
			}
			done <- err
		}()
		return done
	}
	first := run(context.Background(), "one")
	<-g.in
	ctx, cancel := context.WithCancel(context.Background())
	second := run(ctx, "two")
	for len(e.Active()) < 2 {
		time.Sleep(time.Millisecond)
	}
	if l := e.Active(); !l[0].Running || l[1].Running || l[0].Client != "one" || !l[0].Since.Equal(time.Unix(1000, 0)) {
		t.Errorf("%+v", l)
	}
	err := <-run(context.Background(), "three")
	if !errors.Is(err, model.ErrOverloaded) || query.KindOf(err) != query.Unavailable {
		t.Error(err)
	}
	cancel()
	if err := <-second; query.KindOf(err) != query.Canceled {
		t.Error(err)
	}
	c.Advance(2 * time.Minute)
	g.out <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if len(e.Active()) != 0 || !strings.Contains(log.String(), "client=one took=2m0s") {
		t.Errorf("%v %s", e.Active(), &log)
	}
}

// TestIterator checks Next and Seek against a plain walk over the merged samples.
func TestIterator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := querytest.New()
		b := model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("a", "b"))}}}
		kinds := map[int64]chunkenc.ValueType{}
		for _, ts := range rapid.SliceOfDistinct(rapid.Int64Range(-50, 50), rapid.ID[int64]).Draw(t, "times") {
			switch kind := rapid.SampledFrom([]chunkenc.ValueType{chunkenc.ValFloat, chunkenc.ValHistogram, chunkenc.ValFloatHistogram}).Draw(t, "kind"); kind {
			case chunkenc.ValFloat:
				b.T, b.V, b.ST = append(b.T, ts), append(b.V, float64(ts)), append(b.ST, ts-7)
				kinds[ts] = kind
			case chunkenc.ValHistogram:
				b.Hist = append(b.Hist, model.HistogramSample{T: ts, ST: ts - 7, H: &histogram.Histogram{Sum: float64(ts)}})
				kinds[ts] = kind
			default:
				b.Hist = append(b.Hist, model.HistogramSample{T: ts, ST: ts - 7, FH: &histogram.FloatHistogram{Sum: float64(ts)}})
				kinds[ts] = kind
			}
		}
		b.Series[0].To, b.Series[0].HTo = len(b.T), len(b.Hist)
		if _, err := s.Append(context.Background(), &b); err != nil {
			t.Fatal(err)
		}
		q, _ := query.NewQueryable(s, nil).Querier(math.MinInt64, math.MaxInt64)
		defer q.Close()
		set := q.Select(context.Background(), true, nil)
		if !set.Next() {
			if len(kinds) > 0 {
				t.Fatal("no series")
			}
			return
		}
		walk(t, set.At(), kinds)
	})
}

func walk(t *rapid.T, s storage.Series, kinds map[int64]chunkenc.ValueType) {
	it, at := s.Iterator(nil), int64(math.MinInt64)
	for {
		least := at + 1
		var got chunkenc.ValueType
		if to := rapid.Int64Range(-60, 60).Draw(t, "to"); rapid.Bool().Draw(t, "seek") {
			got = it.Seek(to)
			if least = max(at, to); at == math.MinInt64 {
				least = to
			}
		} else {
			got = it.Next()
		}
		want, found := int64(0), false
		for ts := range kinds {
			if ts >= least && (!found || ts < want) {
				want, found = ts, true
			}
		}
		if !found {
			if got != chunkenc.ValNone || it.Err() != nil {
				t.Fatalf("%v after the end, %v", got, it.Err())
			}
			return
		}
		if got != kinds[want] || it.AtT() != want || it.AtST() != want-7 {
			t.Fatalf("got %v at %d (start %d), want %v at %d", got, it.AtT(), it.AtST(), kinds[want], want)
		}
		at = want
	}
}

// advancing is a storage in which each look makes another sample of a series newer.
type advancing struct {
	*querytest.Store
	v     float64
	asked int // for how many selections
}

func (a *advancing) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	a.v++
	a.asked += len(reqs)
	b := &model.Batch{T: []int64{int64(a.v)}, V: []float64{a.v}, Series: []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("__name__", "x")), To: 1}}}
	if _, err := a.Append(ctx, b); err != nil {
		return nil, err
	}
	return a.Store.SelectAll(ctx, reqs)
}

// TestOneInstant: what a query names twice is the same, although more is stored meanwhile.
func TestOneInstant(t *testing.T) {
	for _, label := range []string{"", "replica"} {
		a := &advancing{Store: querytest.New()}
		r := model.Reader(a)
		if label != "" {
			r = query.NewPairReader(a, label)
		}
		e := engine(t, r, nil)
		for expr, selections := range map[string]int{"x - x": 1, "sum(x) - on() last_over_time(x[5s])": 2, "x - x @ 1": 1, `x - x{a=""}`: 2, `x - x offset 1ms`: 2} {
			a.asked = 0
			res, err := e.Instant(t.Context(), expr, time.Unix(1, 0), query.QueryOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if v := res.Value.(promql.Vector); len(v) != 1 || v[0].F != 0 {
				t.Errorf("pairs by %q: %s is %v", label, expr, v)
			}
			if a.asked != selections {
				t.Errorf("pairs by %q: %s asks for %d selections, want %d", label, expr, a.asked, selections)
			}
			res.Close()
		}
		if a.Open() != 0 {
			t.Error("selections left open")
		}
	}
}
