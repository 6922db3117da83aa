package live

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sys/unix"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// BenchmarkApply applies ticks of 10,000 series in eight shards, which come in five
// requests as of bench live: with 100 feeds of ten series each, spread over the shards,
// and with none. The CPU time of Apply and of Poll counts.
func BenchmarkApply(b *testing.B) {
	for _, feeds := range []int{0, 100, 1000} {
		b.Run(fmt.Sprint("feeds=", feeds), func(b *testing.B) { benchApply(b, feeds) })
	}
}

// threadCPU is for how many nanoseconds this thread has computed.
func threadCPU(b *testing.B) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return ts.Nano()
}

func benchApply(b *testing.B, feeds int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const series, lanes = 10_000, 5
	shards := make([]*shard.Shard, 8)
	fs := vfs.NewMem()
	for i := range shards {
		s, err := shard.Open(shard.Options{ID: i, Dir: fmt.Sprint("/s", i), FS: fs})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		shards[i] = s
	}
	f := New(shards)
	defer f.Close()
	var open []*Feed
	for i := range feeds {
		feed, err := f.Subscribe(context.Background(), &model.FeedRequest{WakeAt: 1 << 15, Matchers: []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, "__name__", fmt.Sprint("metric_", i))}})
		if err != nil {
			b.Fatal(err)
		}
		defer feed.Close()
		open = append(open, feed)
	}
	var batch model.Batch
	items := make([][]shard.Item, lanes*len(shards)) // by lane and shard
	for i := range series {
		key := model.AppendKey(nil, labels.FromStrings("__name__", fmt.Sprint("metric_", i/10), "instance", fmt.Sprint("host-", i%10), "job", "node"))
		batch.Series = append(batch.Series, model.BatchSeries{Key: key, From: i, To: i + 1})
		batch.T, batch.V = append(batch.T, 0), append(batch.V, 0)
		hash := model.HashKey(key)
		at := i%lanes*len(shards) + int(hash%uint64(len(shards)))
		items[at] = append(items[at], shard.Item{Series: i, Hash: hash, Key: key})
	}
	var got model.FeedBatch
	var op shard.Op
	var payload []byte
	var took int64
	lim := shard.Limits{MaxT: 1 << 60}
	index := uint64(0)
	n := 0
	for ; b.Loop(); n++ {
		began := threadCPU(b)
		for i := n % 10; i < len(open); i += 10 { // each is read after ten ticks
			if err := open[i].Poll(&got); err != nil || got.Lost > 0 {
				b.Fatal(err, got.Lost)
			}
		}
		took += threadCPU(b) - began
		for i := range batch.T {
			batch.T[i], batch.V[i] = int64(n+1)*100, float64(i+n)
		}
		for at, list := range items {
			op.Reset()
			shards[at%len(shards)].Encode(&op, &batch, list, &lim)
			payload = append(shard.PayloadHeader(payload[:0]), op.Bytes(&lim)...)
			index++
			began := threadCPU(b)
			if _, err := shards[at%len(shards)].Apply(index, payload); err != nil {
				b.Fatal(err)
			}
			took += threadCPU(b) - began
		}
	}
	b.ReportMetric(float64(took)/float64(n)/series, "apply-ns/sample")
	b.ReportMetric(0, "ns/op")
}
