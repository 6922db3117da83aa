package ingest

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/require"

	"github.com/strandline-db/strandline/shard/model"
)

// store is an Appender that copies what it is given.
type store struct {
	got      model.Batch
	err      error
	rejected []model.Rejection
	hook     func(context.Context)
}

func (s *store) Append(ctx context.Context, b *model.Batch) (model.AppendResult, error) {
	if s.hook != nil {
		s.hook(ctx)
	}
	if s.err != nil {
		return model.AppendResult{}, s.err
	}
	s.got = copyBatch(b)
	return model.AppendResult{Samples: len(b.T), Histograms: len(b.Hist), Exemplars: len(b.Exemplars), Rejected: s.rejected}, nil
}

func copyBatch(b *model.Batch) model.Batch {
	c := model.Batch{
		Series: slices.Clone(b.Series), T: slices.Clone(b.T), V: slices.Clone(b.V), ST: slices.Clone(b.ST),
		Hist: slices.Clone(b.Hist), Exemplars: slices.Clone(b.Exemplars), Metadata: slices.Clone(b.Metadata),
	}
	for i := range c.Series {
		c.Series[i].Key = bytes.Clone(c.Series[i].Key)
	}
	for i := range c.Exemplars {
		c.Exemplars[i].Labels = bytes.Clone(c.Exemplars[i].Labels)
	}
	for i := range c.Metadata {
		m := &c.Metadata[i]
		m.Metric, m.Help, m.Unit = string([]byte(m.Metric)), string([]byte(m.Help)), string([]byte(m.Unit))
	}
	return c
}

func newDecoder() *decoder { return &decoder{seen: map[metaRef]struct{}{}} }

// decodeBody runs a plain body through a decoder.
func decodeBody(d *decoder, p protocol, body []byte) error {
	src := snappy.Encode(nil, body)
	return d.decode(p, src, len(body), unfold*(32<<20))
}

// equalBits compares values bit for bit, in which NaNs are values like others.
func equalBits(t *testing.T, want, got []float64) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, math.Float64bits(want[i]), math.Float64bits(got[i]), "value %d", i)
	}
}
