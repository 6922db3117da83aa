package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
)

// The times of samples in these tests: before the retention of the node that takes them,
// before the cut in the log, which another node's clock has put further on, and after both.
var (
	ancient = start.Add(-2 * time.Hour).UnixMilli()
	old     = start.Add(-45 * time.Minute).UnixMilli()
	fresh   = start.UnixMilli()
)

// newCut returns an engine of one shard for five series, with such a cut.
func newCut(t *testing.T) *fixture {
	f := newFixture(t, Options{Shards: 1, Retention: time.Hour, MaxSeries: 5})
	if err := f.committer.Commit(t.Context(), []Op{{Bytes: shard.AppendCutOp(nil, start.Add(-30*time.Minute).UnixMilli())}}); err != nil {
		t.Fatal(err)
	}
	return f
}

// mixed is a batch of five series that each lose something to age, and of one too many.
func mixed() *model.Batch {
	b := &model.Batch{}
	add := func(floats, ints, histograms, exemplars []int64) {
		s := model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "m", "i", fmt.Sprint(len(b.Series)))),
			From: len(b.T), HFrom: len(b.Hist), EFrom: len(b.Exemplars)}
		for _, at := range floats {
			b.T, b.V = append(b.T, at), append(b.V, 1)
		}
		for _, at := range ints {
			b.Hist = append(b.Hist, model.HistogramSample{T: at, H: tsdbutil.GenerateTestHistogram(1)})
		}
		for _, at := range histograms {
			b.Hist = append(b.Hist, model.HistogramSample{T: at, FH: tsdbutil.GenerateTestFloatHistogram(1)})
		}
		for _, at := range exemplars {
			b.Exemplars = append(b.Exemplars, model.Exemplar{T: at, Value: 1, Labels: model.AppendKeyLabel(nil, "id", "x")})
		}
		s.To, s.HTo, s.ETo = len(b.T), len(b.Hist), len(b.Exemplars)
		b.Series = append(b.Series, s)
	}
	add([]int64{ancient, old, old + 1, fresh, fresh + 1, fresh + 2}, nil, nil, nil)
	add(nil, []int64{ancient, old, fresh}, []int64{fresh + 1, old + 1, ancient}, nil)
	add([]int64{old}, []int64{old + 1}, nil, nil)
	add([]int64{fresh, fresh + 1}, nil, nil, []int64{fresh, old, ancient})
	add([]int64{ancient, fresh}, nil, nil, nil)
	add([]int64{ancient, fresh}, []int64{fresh + 1}, nil, []int64{fresh})
	return b
}

// checkMixed looks at the answer to mixed: what is counted is stored, and a series of
// which samples are missing is named once. Exemplars alone are no reason to name one.
func checkMixed(t *testing.T, res *model.AppendResult, want ...int) {
	t.Helper()
	if res.Samples != 6 || res.Histograms != 2 || res.Exemplars != 1 {
		t.Errorf("counted as written: %d samples, %d histograms, %d exemplars; want 6, 2, 1", res.Samples, res.Histograms, res.Exemplars)
	}
	var named []int
	for _, r := range res.Rejected {
		named = append(named, r.Series)
		why := model.ErrTooOld
		if r.Series == 5 {
			why = model.ErrSeriesLimit
		}
		if !errors.Is(r.Err, why) {
			t.Errorf("series %d: %v; want %v", r.Series, r.Err, why)
		}
	}
	if !slices.Equal(named, want) {
		t.Errorf("named %v, want %v", named, want)
	}
}

// TestCounted: an append counts what it has stored, and names each series once of which
// samples are not, for whatever reasons. Sent again it is answered the same.
func TestCounted(t *testing.T) {
	f := newCut(t)
	for range 2 {
		res := f.append(mixed())
		checkMixed(t, &res, 0, 1, 2, 4, 5)
	}
	samples := 0
	for _, c := range f.read(labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")) {
		samples += len(c.T) + len(c.Hist)
	}
	if samples != 8 {
		t.Errorf("%d samples and histograms are stored, 8 are counted", samples)
	}
}

// dropping is a committer that loses a race: before what it is given first come in the log
// the numbers of all series that were encoded.
type dropping struct {
	Committer
	done bool
}

func (d *dropping) Commit(ctx context.Context, ops []Op) error {
	if !d.done {
		d.done = true
		if err := d.Committer.Commit(ctx, []Op{{Bytes: shard.AppendDropOp(nil, []uint32{1, 2, 3, 4, 5})}}); err != nil {
			return err
		}
	}
	return d.Committer.Commit(ctx, ops)
}

// TestCountedAgain: nor is anything counted or named twice of series that are sent again
// because their numbers were gone.
func TestCountedAgain(t *testing.T) {
	f := newCut(t)
	b := mixed()
	b.Series = b.Series[:5]
	f.append(b)
	d := &dropping{Committer: f.committer}
	f.committer = d
	res := f.append(b)
	checkMixed(t, &res, 0, 1, 2, 4)
	if !d.done {
		t.Error("nothing was dropped")
	}
}
