package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// taken passes on what each batch holds, as text.
type taken chan []string

func (a taken) Append(_ context.Context, b *model.Batch) (model.AppendResult, error) {
	var out []string
	for _, s := range b.Series {
		if err := model.CheckKey(s.Key); err != nil {
			return model.AppendResult{}, err
		}
		out = append(out, fmt.Sprintf("%s %g @%d", model.KeyLabels(s.Key), b.V[s.From], b.T[s.From]))
	}
	for _, m := range b.Metadata {
		out = append(out, fmt.Sprintf("%s is a %s: %s", m.Metric, m.Type, m.Help))
	}
	a <- out
	return model.AppendResult{}, nil
}

func TestSelfScrape(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	reg := prometheus.NewRegistry()
	n := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "n_total", Help: "Things."}, []string{"kind"})
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "h", Buckets: []float64{1, 2.5}})
	q := prometheus.NewSummary(prometheus.SummaryOpts{Name: "q", Objectives: map[float64]float64{0.5: 0.1}})
	reg.MustRegister(n, h, q)
	n.WithLabelValues("a").Add(3)
	h.Observe(2)
	q.Observe(7)
	c := clock.NewManual(time.UnixMilli(1000))
	got := make(taken)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := &SelfScrape{Gatherer: reg, Appender: got, Interval: time.Second, Instance: "i", Clock: c}
	go func() { defer close(done); s.Run(ctx) }()
	first := <-got
	cancel()
	<-done
	want := []string{
		`{__name__="n_total", instance="i", job="strandline", kind="a"} 3 @1000`,
		`{__name__="h_bucket", instance="i", job="strandline", le="1.0"} 0 @1000`,
		`{__name__="h_bucket", instance="i", job="strandline", le="2.5"} 1 @1000`,
		`{__name__="h_bucket", instance="i", job="strandline", le="+Inf"} 1 @1000`,
		`{__name__="h_sum", instance="i", job="strandline"} 2 @1000`,
		`{__name__="h_count", instance="i", job="strandline"} 1 @1000`,
		`{__name__="q", instance="i", job="strandline", quantile="0.5"} 7 @1000`,
		`{__name__="up", instance="i", job="strandline"} 1 @1000`,
		"n_total is a counter: Things.",
	}
	for _, w := range want {
		if !slices.Contains(first, w) {
			t.Errorf("%s is missing in\n%s", w, strings.Join(first, "\n"))
		}
	}
}

type refusing struct{}

func (refusing) Append(context.Context, *model.Batch) (model.AppendResult, error) {
	return model.AppendResult{Rejected: []model.Rejection{{Err: model.ErrSeriesLimit}}}, nil
}

func TestSelfScrapeReportsRefusals(t *testing.T) {
	s := &SelfScrape{Gatherer: prometheus.NewRegistry(), Appender: refusing{}}
	if err := s.scrape(t.Context(), time.UnixMilli(1)); !errors.Is(err, model.ErrSeriesLimit) {
		t.Fatalf("got %v", err)
	}
}
