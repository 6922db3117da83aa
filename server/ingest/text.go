package ingest

import (
	"bytes"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	// batchSamples and batchBytes end a batch of the text parsers.
	batchSamples = 20000
	batchBytes   = 1 << 20
	// maxLine bounds a line of text, bytes.
	maxLine = 64 << 20
)

// textBatch gathers samples of text input until they make a batch worth storing.
type textBatch struct {
	d    *decoder
	emit func(*model.Batch) error
	key  []byte
}

func newTextBatch(emit func(*model.Batch) error) *textBatch {
	t := &textBatch{d: &decoder{}, emit: emit}
	t.d.reset(0)
	return t
}

// begin starts adding to the series of ls: to the last one, if it is the same.
func (t *textBatch) begin(ls labels.Labels) {
	t.key = model.AppendKey(t.key[:0], ls)
	if n := len(t.d.batch.Series); n > 0 && bytes.Equal(t.d.batch.Series[n-1].Key, t.key) {
		return
	}
	s := t.d.begin()
	start := len(t.d.arena)
	t.d.arena = append(t.d.arena, t.key...)
	s.Key = t.d.arena[start:len(t.d.arena):len(t.d.arena)]
	t.d.batch.Series = append(t.d.batch.Series, s)
}

// end closes the series of the last begin, and emits the batch when it is full.
func (t *textBatch) end() error {
	b := &t.d.batch
	s := &b.Series[len(b.Series)-1]
	s.To, s.HTo, s.ETo = len(b.T), len(b.Hist), len(b.Exemplars)
	if len(b.T)+len(b.Hist)+len(b.Exemplars) < batchSamples && len(t.d.arena) < batchBytes {
		return nil
	}
	return t.flush()
}

// flush emits what there is.
func (t *textBatch) flush() error {
	b := &t.d.batch
	if len(b.Series) == 0 && len(b.Metadata) == 0 {
		return nil
	}
	err := t.emit(b)
	t.d.reset(0)
	return err
}
