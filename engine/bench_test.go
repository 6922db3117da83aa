package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// BenchmarkReplay opens a folder whose log holds 3 million samples of 30,000 series.
func BenchmarkReplay(b *testing.B) {
	const series, scrapes = 30_000, 100
	dir := b.TempDir()
	o := &Options{Retention: -1, HeadBytes: 1 << 40}
	db, err := Open(dir, o)
	if err != nil {
		b.Fatal(err)
	}
	keys := make([][]byte, series)
	for i := range keys {
		keys[i] = model.AppendKey(nil, labels.FromStrings("__name__", fmt.Sprint("metric_", i%300), "instance", fmt.Sprint("host-", i/300), "job", "node"))
	}
	var batch model.Batch
	for s := range scrapes {
		for from := 0; from < series; from += 2000 {
			batch.Reset()
			for i := from; i < min(from+2000, series); i++ {
				n := len(batch.T)
				batch.T, batch.V = append(batch.T, int64(s)*10_000), append(batch.V, float64(i*s%1000)/10)
				batch.Series = append(batch.Series, model.BatchSeries{Key: keys[i], From: n, To: n + 1})
			}
			if _, err := db.Append(context.Background(), &batch); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for b.Loop() {
		if db, err = Open(dir, o); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(series*scrapes), "ns/sample")
}

// BenchmarkSelect selects one of 10,000 series, and all of them.
func BenchmarkSelect(b *testing.B) {
	db, err := Open(b.TempDir(), &Options{Retention: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Append(b.Context(), sameValue(10_000, 0, 1)); err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct{ name, label, value string }{{"one", "i", "7"}, {"all", "__name__", "m"}} {
		b.Run(bc.name, func(b *testing.B) {
			req := &model.SelectRequest{MaxT: 1000, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, bc.label, bc.value)}}
			for b.Loop() {
				sel, err := db.Select(b.Context(), req)
				if err != nil {
					b.Fatal(err)
				}
				sel.Close()
			}
		})
	}
}
