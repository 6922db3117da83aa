package live_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// cpu is the time that this process has computed.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIngest appends ten scrapes a second, of 10,000 series each, by a clock that
// goes as fast as the machine can: 100,000 samples a second. 100 distinct queries match
// 10 series each, and 1,000 subscribers read them. The CPU a sample with them, over that
// without, is what live queries cost the ingest.
func BenchmarkIngest(b *testing.B) {
	for _, x := range []struct {
		name string
		req  live.Request
		subs int
	}{
		{"alone", live.Request{}, 0},
		{"selectors", live.Request{Query: `metric_%d`}, 1000},
		{"rates", live.Request{Query: `sum by (job) (rate(metric_%d[1m]))`}, 1000},
		{"samples", live.Request{Query: `metric_%d`, Samples: true}, 1000},
		{"stepped", live.Request{Query: `topk(3, metric_%d)`}, 1000},
	} {
		b.Run(x.name, func(b *testing.B) { benchIngest(b, x.req, x.subs) })
	}
}

func benchIngest(b *testing.B, req live.Request, subs int) {
	const series, queries = 10_000, 100
	now := clock.NewManual(start)
	db, err := engine.Open(b.TempDir(), &engine.Options{Retention: -1, HeadBytes: 1 << 40, MinFreeBytes: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	q, err := query.New(db, &query.Options{})
	if err != nil {
		b.Fatal(err)
	}
	hub, err := live.New(db, db, q, &live.Options{Clock: now})
	if err != nil {
		b.Fatal(err)
	}
	defer hub.Close()
	done := readers(b, hub, req, subs, queries)
	var batch model.Batch
	for i := range series {
		key := model.AppendKey(nil, labels.FromStrings("__name__", fmt.Sprint("metric_", i/10), "instance", fmt.Sprint("host-", i%10), "job", "node"))
		batch.Series = append(batch.Series, model.BatchSeries{Key: key, From: i, To: i + 1})
		batch.T, batch.V = append(batch.T, 0), append(batch.V, 0)
	}
	b.ResetTimer()
	began := cpu(b)
	n := 0
	for b.Loop() {
		now.Advance(100 * time.Millisecond)
		at := now.Now().UnixMilli()
		for i := range batch.T {
			batch.T[i], batch.V[i] = at, float64(n+i)
		}
		if _, err := db.Append(context.Background(), &batch); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64((cpu(b)-began).Nanoseconds())/float64(n)/series, "cpu-ns/sample")
	b.ReportMetric(float64(done())/float64(n), "frames/op")
	b.ReportMetric(0, "ns/op")
}

// readers subscribes and reads on one goroutine; what it returns ends it and says how
// many steps came.
func readers(b *testing.B, hub *live.Hub, req live.Request, subs, queries int) func() int64 {
	b.Helper()
	var got atomic.Int64
	var wg sync.WaitGroup
	wake := make(chan int, subs+1)
	all := make([]*live.Subscription, subs)
	for i := range all {
		r := req
		r.Query, r.Wake = fmt.Sprintf(req.Query, i%queries), func() { wake <- i }
		s, err := hub.Subscribe(context.Background(), r)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = s
		wake <- i
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		var evs []live.Event
		for i := range wake {
			if i < 0 {
				return
			}
			for {
				if evs = all[i].Poll(evs[:0]); len(evs) == 0 {
					break
				}
				for _, ev := range evs {
					if ev.Kind == live.DataKind {
						got.Add(1)
					}
				}
			}
		}
	}()
	return func() int64 {
		for _, s := range all {
			s.Close()
		}
		wake <- -1
		wg.Wait()
		return got.Load()
	}
}

// BenchmarkStep evaluates one step of 1,000 series with a window of 600 samples each.
func BenchmarkStep(b *testing.B) {
	for _, text := range []string{`m`, `rate(m[1m])`, `sum by (g) (rate(m[1m]))`} {
		b.Run(text, func(b *testing.B) {
			r := newRig(b, live.Options{Delay: -1})
			var batch model.Batch
			for i := range 1000 {
				key := model.AppendKey(nil, labels.FromStrings("__name__", "m", "g", fmt.Sprint(i%10), "i", fmt.Sprint(i)))
				from := len(batch.T)
				for k := range 600 {
					batch.T, batch.V = append(batch.T, start.UnixMilli()-60_000+int64(k)*100), append(batch.V, float64(k))
				}
				batch.Series = append(batch.Series, model.BatchSeries{Key: key, From: from, To: len(batch.T)})
			}
			r.append(&batch)
			c := r.subscribe(live.Request{Query: text, Step: 100 * time.Millisecond})
			now := start.UnixMilli()
			for b.Loop() {
				now += 100
				r.clock.Advance(100 * time.Millisecond)
				c.until(now)
				clear(c.steps)
			}
		})
	}
}
