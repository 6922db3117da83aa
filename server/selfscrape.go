package server

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// Appender stores batches. It is called by one goroutine; the batch is the
// caller's again when Append returns.
type Appender interface {
	Append(context.Context, *model.Batch) (model.AppendResult, error)
}

// SelfScrape stores what a gatherer gives, as a Prometheus that scrapes it would.
type SelfScrape struct {
	Gatherer prometheus.Gatherer
	Appender Appender
	Interval time.Duration // more than 0
	Instance string        // value of the label instance
	Clock    clock.Clock   // nil: the machine's
	Logger   *slog.Logger  // nil: discard
}

// Run scrapes at once and then at each interval, until ctx ends.
func (s *SelfScrape) Run(ctx context.Context) {
	c, log := s.Clock, s.Logger
	if c == nil {
		c = clock.Real{}
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	for {
		if err := s.scrape(ctx, c.Now()); err != nil && ctx.Err() == nil {
			log.Warn("own metrics were not stored", "err", err)
		}
		ch, release := c.After(s.Interval)
		select {
		case <-ctx.Done():
			release()
			return
		case <-ch:
		}
	}
}

func (s *SelfScrape) scrape(ctx context.Context, now time.Time) error {
	families, err := s.Gatherer.Gather()
	if err != nil {
		return err
	}
	b := newFamilyBatch(now.UnixMilli(), "strandline", s.Instance)
	for _, f := range families {
		b.family(f)
	}
	b.sample("up", nil, 1)
	res, err := s.Appender.Append(ctx, &b.Batch)
	if err != nil {
		return err
	}
	if len(res.Rejected) > 0 {
		return fmt.Errorf("%d series refused, the first: %w", len(res.Rejected), res.Rejected[0].Err)
	}
	return nil
}

// familyBatch turns metric families into a batch, all at one time.
type familyBatch struct {
	model.Batch
	t       int64
	fixed   []labels.Label
	builder *labels.Builder
}

func newFamilyBatch(t int64, job, instance string) *familyBatch {
	return &familyBatch{t: t, builder: labels.NewBuilder(labels.EmptyLabels()),
		fixed: []labels.Label{{Name: "job", Value: job}, {Name: "instance", Value: instance}}}
}

// sample adds one value; extra are pairs of label name and value.
func (b *familyBatch) sample(name string, m *dto.Metric, v float64, extra ...string) {
	b.builder.Reset(labels.EmptyLabels())
	for _, l := range m.GetLabel() {
		b.builder.Set(l.GetName(), l.GetValue())
	}
	for _, l := range b.fixed {
		b.builder.Set(l.Name, l.Value)
	}
	for i := 0; i+1 < len(extra); i += 2 {
		b.builder.Set(extra[i], extra[i+1])
	}
	b.builder.Set(commonmodel.MetricNameLabel, name)
	n := len(b.T)
	b.T, b.V = append(b.T, b.t), append(b.V, v)
	b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, b.builder.Labels()), From: n, To: n + 1})
}

func (b *familyBatch) family(f *dto.MetricFamily) {
	name := f.GetName()
	b.Metadata = append(b.Metadata, model.Metadata{Metric: name, Type: strings.ToLower(f.GetType().String()), Help: f.GetHelp(), Unit: f.GetUnit()})
	if f.GetType() == dto.MetricType_UNTYPED {
		b.Metadata[len(b.Metadata)-1].Type = "unknown"
	}
	for _, m := range f.GetMetric() {
		switch {
		case m.Counter != nil:
			b.sample(name, m, m.Counter.GetValue())
		case m.Gauge != nil:
			b.sample(name, m, m.Gauge.GetValue())
		case m.Untyped != nil:
			b.sample(name, m, m.Untyped.GetValue())
		case m.Summary != nil:
			for _, q := range m.Summary.GetQuantile() {
				b.sample(name, m, q.GetValue(), "quantile", number(q.GetQuantile()))
			}
			b.sample(name+"_sum", m, m.Summary.GetSampleSum())
			b.sample(name+"_count", m, float64(m.Summary.GetSampleCount()))
		case m.Histogram != nil:
			b.histogram(name, m)
		}
	}
}

// histogram adds a classic histogram; the bucket to infinity is implied in the family.
func (b *familyBatch) histogram(name string, m *dto.Metric) {
	h := m.GetHistogram()
	infinite := false
	for _, k := range h.GetBucket() {
		infinite = infinite || math.IsInf(k.GetUpperBound(), 1)
		b.sample(name+"_bucket", m, float64(k.GetCumulativeCount()), "le", number(k.GetUpperBound()))
	}
	if !infinite {
		b.sample(name+"_bucket", m, float64(h.GetSampleCount()), "le", "+Inf")
	}
	b.sample(name+"_sum", m, h.GetSampleSum())
	b.sample(name+"_count", m, float64(h.GetSampleCount()))
}

// number writes bucket bounds and quantiles as Prometheus 3 does: 1 is "1.0".
func number(v float64) string {
	if math.IsInf(v, 1) {
		return "+Inf"
	}
	s := strconv.FormatFloat(v, 'g', -1, 64)
	if !strings.ContainsAny(s, "e.") && !math.IsNaN(v) && !math.IsInf(v, 0) {
		s += ".0"
	}
	return s
}
