package live_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/live"
)

// TestComeAndGo: subscribers of every kind come and go by the machine's clock while
// samples arrive; each gets a step. It is for the race detector.
func TestComeAndGo(t *testing.T) {
	db, err := engine.Open(t.TempDir(), &engine.Options{Retention: -1, Shards: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	q, err := query.New(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	hub, err := live.New(db, db, q, &live.Options{Delay: -1, MinStep: 10 * time.Millisecond, Linger: 50 * time.Millisecond, Ring: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer hub.Close()
	ctx, stop := context.WithCancel(context.Background())
	var writers, readers sync.WaitGroup
	writers.Add(1)
	go func() {
		defer writers.Done()
		g := &generator{rng: rand.New(rand.NewPCG(1, 1)), val: map[string]float64{}}
		for ctx.Err() == nil {
			if _, err := db.Append(context.Background(), g.batch(time.Now().UnixMilli(), true)); err != nil {
				t.Error(err)
			}
		}
	}()
	for k := range 8 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			rng := rand.New(rand.NewPCG(uint64(k), 2))
			for range 15 {
				comeAndGo(t, hub, rng)
			}
		}()
	}
	readers.Wait()
	stop()
	writers.Wait()
}

// comeAndGo subscribes, waits for a step and leaves.
func comeAndGo(t *testing.T, hub *live.Hub, rng *rand.Rand) {
	wake := make(chan struct{}, 1)
	req := live.Request{Step: time.Duration(10+10*rng.IntN(3)) * time.Millisecond, Wake: func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}}
	req.Query = []string{`m`, `sum by (g) (rate(m[2s]))`, `topk(2, n)`, `n{s="1"}`, `count(m)`}[rng.IntN(5)]
	switch rng.IntN(4) {
	case 0:
		req.Backfill = time.Second
	case 1:
		req.After = time.Now().UnixMilli() - 500
	case 2:
		req.Samples, req.Query = true, `m`
	}
	s, err := hub.Subscribe(context.Background(), req)
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	for {
		evs := s.Poll(nil)
		for _, ev := range evs {
			if ev.Kind == live.DataKind {
				return
			}
		}
		if len(evs) > 0 {
			continue
		}
		select {
		case <-wake:
		case <-time.After(30 * time.Second):
			t.Errorf("%+v: nothing comes", req)
			return
		}
	}
}
