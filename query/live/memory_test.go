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

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // and what pools had
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

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

// TestSamplesMemory: subscriptions in samples mode take memory for what comes, not for what
// might.
func TestSamplesMemory(t *testing.T) {
	const idle, events = 998, 10_000 // more than a ring holds
	r := newRig(t, live.Options{})
	r.subscribe(live.Request{Query: "first", Samples: true}) // takes what all share
	was := heap()
	grown := func() int64 {
		now := heap()
		defer func() { was = now }()
		return now - was
	}
	for i := range idle {
		r.subscribe(live.Request{Query: fmt.Sprint("idle_", i), Samples: true})
	}
	each := grown() / idle
	t.Logf("%d bytes for an idle one", each)
	if each > 8<<10 {
		t.Errorf("an idle one takes %d bytes", each)
	}
	b := gauge("a", start.UnixMilli(), 0)
	for i := 1; i < events; i++ {
		b.T, b.V = append(b.T, start.UnixMilli()+int64(i)), append(b.V, float64(i))
	}
	b.Series[0].To = events
	f := &follower{seen: map[string]int{}}
	f.join(r, live.Request{})
	grown()
	r.append(b)
	f.until(r, "what fell off the ring is told", func() bool { return len(f.drops) > 0 })
	f.seen = nil
	busy := grown()
	t.Logf("%d bytes for one with a full ring", busy)
	if busy > 4<<20 {
		t.Errorf("one with a full ring takes %d bytes", busy)
	}
}
