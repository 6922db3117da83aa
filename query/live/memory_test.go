package live_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
)

// TestSlowBackfills: subscribers that stop in the midst of backfills of their own hold
// little each, and get every step in the end.
func TestSlowBackfills(t *testing.T) {
	const series, slow = 1000, 24
	r := newRig(t, live.Options{Delay: -1, MaxBackfill: 24 * time.Hour, RingValues: 50 * series})
	b := &model.Batch{}
	for i := range series {
		ls := labels.FromStrings("__name__", "m", "s", fmt.Sprint(i))
		b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, ls), From: i, To: i + 1})
		b.T, b.V = append(b.T, start.UnixMilli()), append(b.V, float64(i))
	}
	r.append(b)
	query := fmt.Sprintf("m @ %d", start.Unix())
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // and what pools had
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	deadline := time.After(time.Minute)
	read := func(s *live.Subscription, enough int) (steps int) {
		for steps < enough {
			evs := s.Poll(nil)
			size := 0
			for _, ev := range evs {
				size += len(ev.Series)
				if ev.Kind == live.DataKind {
					size += len(ev.Step.Values)
					steps++
				}
				if ev.Kind == live.DroppedKind || ev.Kind == live.ErrorKind {
					t.Fatalf("%+v", ev)
				}
			}
			if size > 2*series {
				t.Fatalf("a poll gave %d values", size)
			}
			if len(evs) > 0 {
				continue
			}
			select {
			case <-r.wake:
			case <-deadline:
				t.Fatal("no step comes")
			}
		}
		return steps
	}
	subs := make([]*live.Subscription, slow)
	var before int64
	for i := range subs {
		subs[i] = r.subscribe(live.Request{Query: query, Backfill: time.Duration(i+1) * 60 * time.Second}).Subscription
		read(subs[i], 3)
		if i == 0 {
			before = heap()
		}
	}
	const pieces = 50 * series * 24 // of what all share
	grown := heap() - before - pieces
	t.Logf("%d bytes for each", grown/slow)
	if grown/slow > 256<<10 {
		t.Errorf("the heap grew by %d bytes for each", grown/slow)
	}
	if n := 3 + read(subs[1], 116); n < 119 {
		t.Errorf("%d steps came", n)
	}
}
