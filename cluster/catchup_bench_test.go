package cluster

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// catchUpSamples a series, of catchUpSeries, with values that do not compress, make blocks
// of some 100 MB.
const (
	catchUpSeries  = 100
	catchUpSamples = 120_000
)

// BenchmarkCatchUp measures a node that comes back after the others have let go of the log
// that it lacks: from its start to a linearizable read. Its network is loopback TCP; all
// three nodes are in this process, and so is the growth of the heap that is reported.
func BenchmarkCatchUp(b *testing.B) {
	for range b.N {
		b.StopTimer()
		c := emptyTrio(b, Options{TrailingLogs: 1, Network: TCP{}, CommitTimeout: time.Minute}, nil)
		for name := range c.peers {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			c.peers[name] = ln.Addr().String()
			if err := ln.Close(); err != nil {
				b.Fatal(err)
			}
		}
		c.startAll()
		c.stop("n3")
		rng := rand.New(rand.NewPCG(1, 1))
		for at := int64(0); at < catchUpSamples; at += 1000 {
			c.mustAppend(rng, at, 1000)
		}
		c.flush("n1")
		c.flush("n2")
		c.mustWrite("n2", 1000, 10)
		b.StartTimer()
		c.catchUp(b, "n3")
		b.StopTimer()
		for name := range c.peers {
			c.stop(name)
		}
	}
}

func (c *trio) mustAppend(rng *rand.Rand, from int64, n int64) {
	batch := &model.Batch{}
	for s := range catchUpSeries {
		ls := labels.FromStrings("__name__", "noise", "s", fmt.Sprint(s))
		bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(batch.T)}
		for i := range n {
			batch.T, batch.V = append(batch.T, (from+i)*1000), append(batch.V, math.Float64frombits(rng.Uint64()>>2))
		}
		bs.To = len(batch.T)
		batch.Series = append(batch.Series, bs)
	}
	if _, err := c.nodes["n1"].db.Append(context.Background(), batch); err != nil {
		c.t.Fatal(err)
	}
}

func (c *trio) catchUp(b *testing.B, name string) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, peak, start := m.HeapInuse, uint64(0), time.Now()
	c.start(name)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			if _, _, err := c.nodes[name].node.Sync(ctx, Wanted{Level: Linearizable}); err == nil {
				break
			}
		}
		done <- ctx.Err()
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				b.Fatal(err)
			}
			mb := testutil.ToFloat64(c.nodes[name].node.metrics.fetched) / 1e6
			b.ReportMetric(mb, "MB")
			b.ReportMetric(mb/time.Since(start).Seconds(), "MB/s")
			b.ReportMetric(float64(max(peak, before)-before)/(1<<20), "MiB-heap-growth")
			return
		case <-time.After(5 * time.Millisecond):
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
		}
	}
}
