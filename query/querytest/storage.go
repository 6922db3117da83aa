package querytest

import (
	"context"
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/strandline-db/strandline/shard/model"
)

// errUnsupported: upstream's suites need neither chunks nor the old appender.
var errUnsupported = errors.New("querytest: not supported")

// ReadWriter is what Storage needs of a storage under test.
type ReadWriter interface {
	model.Reader
	Append(ctx context.Context, b *model.Batch) (model.AppendResult, error)
}

// Storage dresses a storage under test as Prometheus' storage.Storage. Reads go
// through the queryable, writes become batches.
type Storage struct {
	storage.Queryable
	W ReadWriter
	// OnClose, if set, is what Close does.
	OnClose func() error
}

var _ storage.Storage = (*Storage)(nil)

// ChunkQuerier implements storage.ChunkQueryable.
func (*Storage) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) { return nil, errUnsupported }

// StartTime implements storage.Storage.
func (*Storage) StartTime() (int64, error) { return math.MinInt64, nil }

// Close implements storage.Storage.
func (s *Storage) Close() error {
	if s.OnClose != nil {
		return s.OnClose()
	}
	return nil
}

// Appender implements storage.Appendable; upstream's suites use AppenderV2.
func (*Storage) Appender(context.Context) storage.Appender { return nil }

// AppenderV2 implements storage.AppendableV2.
func (s *Storage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return &appender{ctx: ctx, w: s.W}
}

// appender gathers one transaction in a batch.
type appender struct {
	ctx context.Context
	w   ReadWriter
	b   model.Batch
}

// Append implements storage.AppenderV2.
func (a *appender) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	b := &a.b
	bs := model.BatchSeries{Key: model.AppendKey(nil, ls), From: len(b.T), HFrom: len(b.Hist), EFrom: len(b.Exemplars)}
	if h == nil && fh == nil {
		b.T, b.V, b.ST = append(b.T, t), append(b.V, v), append(b.ST, st)
	} else {
		b.Hist = append(b.Hist, copyHist(model.HistogramSample{T: t, ST: st, H: h, FH: fh}))
	}
	for _, e := range o.Exemplars {
		b.Exemplars = append(b.Exemplars, model.Exemplar{T: e.Ts, Value: e.Value, Labels: model.AppendKey(nil, e.Labels)})
	}
	bs.To, bs.HTo, bs.ETo = len(b.T), len(b.Hist), len(b.Exemplars)
	b.Series = append(b.Series, bs)
	return 0, nil
}

// Commit implements storage.AppenderTransaction. A rejected series is an error.
func (a *appender) Commit() error {
	res, err := a.w.Append(a.ctx, &a.b)
	for _, r := range res.Rejected {
		err = errors.Join(err, r.Err)
	}
	return err
}

// Rollback implements storage.AppenderTransaction.
func (*appender) Rollback() error { return nil }
