package engine

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
)

// TestOneInstant: while batches come, each of the same value for series in all shards, no
// reader sees a part of one, nor one selection what another of the same SelectAll does not.
func TestOneInstant(t *testing.T) {
	f := newFixture(t, Options{Shards: 7})
	const series = 40
	start := f.clock.Now().UnixMilli()
	f.append(sameValue(series, start, 0))
	for n := 1; n <= 60; n++ {
		// It is applied to some shards, and waits at the next, while a reader comes from the
		// other end.
		k := 1 + n%5
		held, applied := f.shards[k].Hold(), f.shards[k-1].Applied()
		wrote := make(chan error, 1)
		go func() {
			_, err := f.Append(context.Background(), sameValue(series, start, n))
			wrote <- err
		}()
		for f.shards[k-1].Applied() == applied {
			runtime.Gosched()
		}
		looked := make(chan struct{})
		go func() {
			defer close(looked)
			f.oneInstant(series)
		}()
		runtime.Gosched()
		held.Fix(nil)
		<-looked
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		if n%20 == 0 {
			f.flush()
		}
	}
}

// oneInstant looks at all series twice at once, beginning with the last shard, and fails if
// their newest values differ.
func (f *fixture) oneInstant(series int) {
	f.t.Helper()
	req := &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64}
	p := f.whole()
	p.shards = slices.Clone(p.shards)
	slices.Reverse(p.shards)
	sels, err := p.SelectAll(f.t.Context(), []*model.SelectRequest{req, req})
	if err != nil {
		f.t.Error(err)
		return
	}
	defer model.CloseAll(sels)
	newest := map[float64]int{}
	for _, sel := range sels {
		for _, s := range sel.Series {
			var c model.Columns
			if err := s.Read(&c); err != nil {
				f.t.Error(err)
				return
			}
			newest[c.V[len(c.V)-1]]++
		}
	}
	for _, n := range newest {
		if n != 2*series {
			f.t.Errorf("the newest values, and how many series have them: %v", newest)
		}
	}
}

// sameValue is a batch of a sample for each of some series.
func sameValue(series int, start int64, n int) *model.Batch {
	b := &model.Batch{}
	for i := range series {
		key := model.AppendKey(nil, labels.FromStrings("__name__", "m", "i", fmt.Sprint(i)))
		b.Series = append(b.Series, model.BatchSeries{Key: key, From: i, To: i + 1})
		b.T, b.V = append(b.T, start+int64(n)), append(b.V, float64(n))
	}
	return b
}
