package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/server/cache"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o *cache.Options) *cache.Cache {
	t.Helper()
	c, err := cache.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// answers counts the computations of a constant answer.
func answers(n *int, body string) cache.Compute {
	return func(context.Context) ([]byte, error) { *n++; return []byte(body), nil }
}

func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				if l.GetName() == "result" {
					name += " " + l.GetValue()
				}
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestAnswersLiveForAMoment(t *testing.T) {
	clk, reg := clock.NewManual(time.Unix(1000, 0)), prometheus.NewRegistry()
	c := open(t, &cache.Options{Clock: clk, Registerer: reg})
	n := 0
	for range 3 {
		if b, err := c.Get(t.Context(), []byte("k"), answers(&n, "v")); err != nil || string(b) != "v" {
			t.Fatal(string(b), err)
		}
	}
	clk.Advance(99 * time.Millisecond)
	if _, ok := c.Hit([]byte("k")); !ok || n != 1 {
		t.Fatalf("computed %d times", n)
	}
	clk.Advance(time.Millisecond)
	if _, ok := c.Hit([]byte("k")); ok {
		t.Fatal("served past its life")
	}
	if _, err := c.Get(t.Context(), []byte("k"), answers(&n, "w")); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if _, err := c.Bypass(t.Context(), answers(&n, "x")); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	got := gathered(t, reg)
	for name, want := range map[string]float64{"strandline_answer_cache_requests_total hit": 3, "strandline_answer_cache_requests_total miss": 2,
		"strandline_answer_cache_requests_total bypass": 1, "strandline_answer_cache_entries": 1, "strandline_answer_cache_hit_ratio": 0.5} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
}

func TestOneComputationForAll(t *testing.T) {
	c := open(t, nil)
	var mu sync.Mutex
	n, begun, release := 0, make(chan struct{}), make(chan struct{})
	slow := func(context.Context) ([]byte, error) {
		mu.Lock()
		n++
		mu.Unlock()
		close(begun)
		<-release
		return []byte("v"), nil
	}
	var wg sync.WaitGroup
	ask := func() {
		if b, err := c.Get(t.Context(), []byte("k"), slow); err != nil || string(b) != "v" {
			t.Error(string(b), err)
		}
	}
	wg.Go(ask)
	<-begun
	for range 20 {
		wg.Go(ask)
	}
	close(release)
	wg.Wait()
	if n != 1 {
		t.Fatalf("computed %d times", n)
	}
}

func TestErrorsAreNotKept(t *testing.T) {
	c := open(t, nil)
	odd := errors.New("odd")
	if _, err := c.Get(t.Context(), []byte("k"), func(context.Context) ([]byte, error) { return nil, odd }); !errors.Is(err, odd) {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), []byte("k"), func(context.Context) ([]byte, error) { panic("ouch") }); !errors.Is(err, cache.ErrPanicked) {
		t.Fatal(err)
	}
	n := 0
	if _, err := c.Get(t.Context(), []byte("k"), answers(&n, "v")); err != nil || n != 1 {
		t.Fatal(n, err)
	}
}

// stuck blocks until its context ends, and tells why.
func stuck(begun chan<- struct{}, ended chan<- error) cache.Compute {
	return func(ctx context.Context) ([]byte, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	}
}

func TestEndsWhenAllHaveLeft(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := open(t, &cache.Options{Registerer: reg})
	begun, ended, left := make(chan struct{}, 1), make(chan error, 1), make(chan error, 2)
	first, leaveFirst := context.WithCancel(t.Context())
	second, leaveSecond := context.WithCancel(t.Context())
	defer leaveSecond()
	go func() { _, err := c.Get(first, []byte("k"), stuck(begun, ended)); left <- err }()
	<-begun
	go func() { _, err := c.Get(second, []byte("k"), nil); left <- err }()
	for gathered(t, reg)["strandline_answer_cache_requests_total shared"] == 0 {
		runtime.Gosched()
	}
	leaveFirst()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	leaveSecond()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-ended
	n := 0 // a newcomer gets a computation of its own, not the cancelled one
	if b, err := c.Get(t.Context(), []byte("k"), answers(&n, "v")); err != nil || string(b) != "v" {
		t.Fatal(string(b), err)
	}
}

func TestCloseEndsComputations(t *testing.T) {
	c := open(t, nil)
	begun, ended, left := make(chan struct{}, 1), make(chan error, 1), make(chan error, 1)
	go func() { _, err := c.Get(t.Context(), []byte("k"), stuck(begun, ended)); left <- err }()
	<-begun
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-left; !errors.Is(err, model.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), []byte("k"), nil); !errors.Is(err, model.ErrClosed) {
		t.Fatal(err)
	}
}

func TestBounds(t *testing.T) {
	clk, reg := clock.NewManual(time.Unix(1000, 0)), prometheus.NewRegistry()
	c := open(t, &cache.Options{Clock: clk, Registerer: reg, MaxEntries: 10, MaxBytes: 4000, MaxFlights: 1})
	n := 0
	get := func(key, body string) {
		t.Helper()
		if _, err := c.Get(t.Context(), []byte(key), answers(&n, body)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		get(fmt.Sprint(i), "v")
	}
	if got := gathered(t, reg); got["strandline_answer_cache_entries"] != 10 || got["strandline_answer_cache_evictions_total"] != 90 {
		t.Fatal(got)
	}
	get("wide", string(make([]byte, 3000)))
	if got := gathered(t, reg); got["strandline_answer_cache_bytes"] > 4000 || got["strandline_answer_cache_bytes"] < 3000 {
		t.Fatal(got)
	}
	get("too wide", string(make([]byte, 5000)))
	if _, ok := c.Hit([]byte("too wide")); ok {
		t.Fatal("kept what is above the bound")
	}
	clk.Advance(time.Second)
	get("later", "v")
	if got := gathered(t, reg); got["strandline_answer_cache_entries"] != 1 {
		t.Fatal(got)
	}
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { _, err := c.Get(ctx, []byte("stuck"), stuck(begun, ended)); left <- err }()
	<-begun
	if _, err := c.Get(t.Context(), []byte("other"), answers(&n, "v")); !errors.Is(err, model.ErrOverloaded) {
		t.Fatal(err)
	}
	leave()
	<-left
}
