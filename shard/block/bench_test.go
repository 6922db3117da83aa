package block

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// benchFleet makes 20,000 series of two chunks of incompressible bytes.
func benchFleet() []sample {
	rng := rand.New(rand.NewPCG(1, 1))
	stats := chunk.StatsOf([]float64{1, 2, 3})
	out := make([]sample, 20_000)
	for i := range out {
		s := &out[i]
		s.labels = labels.FromStrings("__name__", fmt.Sprintf("node_metric_%03d_total", i%400),
			"instance", fmt.Sprintf("host-%04d:9100", i/400), "job", "node", "zone", fmt.Sprint("z", i%3))
		s.key, s.no = model.AppendKey(nil, s.labels), uint64(i+1)
		for k := range 2 {
			c := chunkIn{meta: ChunkMeta{Kind: chunk.Floats, MinT: int64(k) * 3_600_000, MaxT: int64(k+1)*3_600_000 - 1, Count: 3, Stats: stats}}
			c.data = make([]byte, 240)
			for j := range c.data {
				c.data[j] = byte(rng.IntN(256))
			}
			s.chunks = append(s.chunks, c)
		}
	}
	slices.SortFunc(out, func(a, b sample) int { return slices.Compare(a.key, b.key) })
	return out
}

func BenchmarkWrite(b *testing.B) {
	in := benchFleet()
	for range b.N {
		meta := writeBlock(b, vfs.NewMem(), "b", 0, in)
		b.ReportMetric(float64(meta.Bytes)/float64(meta.Series)-480, "index-B/series")
	}
}

func BenchmarkSelect(b *testing.B) {
	fs := vfs.NewMem()
	writeBlock(b, fs, "b", 0, benchFleet())
	r := openBlock(b, fs, "b")
	name := labels.MustNewMatcher(labels.MatchEqual, "__name__", "node_metric_007_total")
	for _, c := range []struct {
		name string
		ms   []*labels.Matcher
	}{
		{"equal", []*labels.Matcher{name}},
		{"regexp", []*labels.Matcher{name, labels.MustNewMatcher(labels.MatchRegexp, "instance", "host-00[12].*")}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				if _, err := r.Select(context.Background(), c.ms); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIterate(b *testing.B) {
	fs := vfs.NewMem()
	writeBlock(b, fs, "b", 0, benchFleet())
	r := openBlock(b, fs, "b")
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		var key, buf []byte
		var metas []ChunkMeta
		var err error
		for ord := range uint32(r.Meta().Series) {
			if key, _, metas, err = r.Series(ord, key[:0], metas[:0]); err != nil {
				b.Fatal(err)
			}
			for i := range metas {
				if buf, err = r.Chunk(&metas[i], buf[:0]); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}
