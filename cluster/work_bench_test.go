package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// BenchmarkElsewhere asks a node that holds nothing for aggregations over 5,000 counters
// of an hour, done where the data is and by reading samples from there. All four nodes are in this
// process; bytes are what went over the network between them.
func BenchmarkElsewhere(b *testing.B) {
	const series, samples = 5000, 240
	c := newTrio(b, Options{CommitTimeout: time.Minute})
	rng := rand.New(rand.NewPCG(1, 1))
	for from := 0; from < series; from += 500 {
		batch := &model.Batch{}
		for i := range 500 {
			ls := labels.FromStrings("__name__", "requests_total", "instance", fmt.Sprintf("host-%d:9100", (from+i)/10), "path", fmt.Sprint("/p", i%10), "region", fmt.Sprint("r", i%8))
			bs, total := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(batch.T)}, 0.0
			for at := range int64(samples) {
				total += float64(rng.IntN(100))
				batch.T, batch.V = append(batch.T, at*15_000), append(batch.V, total)
			}
			bs.To = len(batch.T)
			batch.Series = append(batch.Series, bs)
		}
		if _, err := c.nodes["n1"].db.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	c.join("n4", "n1")
	c.working()
	reader := c.nodes["n4"].node.Reader()
	for _, expr := range []string{"sum by (region) (rate(requests_total[5m]))", "sum by (instance) (rate(requests_total[5m]))", "count(requests_total)"} {
		for name, r := range map[string]model.Reader{"samples": struct{ model.Reader }{reader}, "parts": reader} {
			for kind, step := range map[string]time.Duration{"range": time.Minute, "instant": 2 * time.Hour} {
				b.Run(fmt.Sprintf("%s/%s/%s", expr, kind, name), func(b *testing.B) { c.measure(b, r, expr, step) })
			}
		}
	}
}

func (c *trio) measure(b *testing.B, r model.Reader, expr string, step time.Duration) {
	q, err := query.New(r, nil)
	if err != nil {
		b.Fatal(err)
	}
	before := c.net.bytes.Load()
	for b.Loop() {
		start := time.Unix(0, 0)
		if step > time.Hour {
			start = time.Unix(3600, 0)
		}
		res, err := q.Range(context.Background(), expr, start, time.Unix(3600, 0), step, query.QueryOptions{})
		if err != nil {
			b.Fatal(err)
		}
		res.Close()
	}
	b.ReportMetric(float64(c.net.bytes.Load()-before)/float64(b.N), "net-B/op")
}
