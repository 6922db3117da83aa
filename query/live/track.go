package live

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/strandline-db/strandline/shard/model"
)

// reach says which steps a sample of some series can change: one at T those in
// [T+from, T+to).
type reach struct {
	matchers []*labels.Matcher
	from, to int64 // ms
}

// maxReaches bounds the feeds of one stepped evaluation. An expression with more
// selectors than that is not corrected.
const maxReaches = 16

// reachOf returns what an expression reads. A selector with a fixed time is left out:
// what it changes has no bounds.
func reachOf(expr parser.Expr, lookback time.Duration) []reach {
	byText := map[string]int{}
	var out []reach
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		sel, ok := n.(*parser.VectorSelector)
		if !ok || sel.Timestamp != nil {
			return nil
		}
		r := reach{matchers: sel.LabelMatchers}
		back := lookback
		if len(path) > 0 {
			if m, ok := path[len(path)-1].(*parser.MatrixSelector); ok {
				back = m.Range
			}
		}
		if sel.Anchored || sel.Smoothed {
			r.from -= lookback.Milliseconds()
			back += lookback
		}
		r.from += sel.OriginalOffset.Milliseconds()
		r.to = sel.OriginalOffset.Milliseconds() + back.Milliseconds()
		whole := sel.StartOrEnd != 0 // what is at the step's own time is so in any subquery
		for i := len(path) - 1; i >= 0 && !whole; i-- {
			q, ok := path[i].(*parser.SubqueryExpr)
			if !ok {
				continue
			}
			if q.Timestamp != nil {
				return nil
			}
			r.from += q.OriginalOffset.Milliseconds()
			r.to += q.OriginalOffset.Milliseconds() + q.Range.Milliseconds()
			whole = q.StartOrEnd != 0
		}
		text := fmt.Sprint(r.matchers)
		i, known := byText[text]
		if !known {
			byText[text] = len(out)
			out = append(out, r)
			return nil
		}
		out[i].from, out[i].to = min(out[i].from, r.from), max(out[i].to, r.to)
		return nil
	})
	return out
}

// tracker tells which closed steps of a stepped evaluation late samples may change.
type tracker struct {
	e     *evaluation
	feeds []model.Feed // beside the plan's reaches; nil: it has too many series
	told  int          // series that they have told of
	batch model.FeedBatch
}

// open subscribes to what the expression reads.
func (k *tracker) open(ctx context.Context) error {
	rs := k.e.plan.reaches
	if len(rs) > maxReaches {
		rs = nil
	}
	k.feeds = []model.Feed{} // there may be none
	for _, r := range rs {
		feed, err := k.e.hub.feeder.Subscribe(ctx, &model.FeedRequest{
			Matchers: r.matchers, MaxSeries: k.maxSeries(), Buffer: buffered, WakeAt: buffered / 2,
			Wake: func() { k.e.hub.sched.kick(k.e) },
		})
		switch {
		case errors.Is(err, model.ErrLimit):
			feed = nil
		case err != nil:
			k.close()
			return err
		}
		k.feeds = append(k.feeds, feed)
	}
	return nil
}

func (k *tracker) close() {
	for _, f := range k.feeds {
		if f != nil {
			f.Close()
		}
	}
	k.feeds, k.told = nil, 0
}

func (k *tracker) maxSeries() int { return max(k.e.hub.opts.MaxSamples/seriesCost, 1) }

// changed returns the times up to last that what was applied since may have changed.
// More samples at once than a feed holds are taken to be on time: asking for the whole
// horizon again would only add to the load.
func (k *tracker) changed(ctx context.Context, last int64) (span, error) {
	if k.told > 2*len(k.feeds)*k.maxSeries() { // most are no more, but the feeds know them
		k.close()
	}
	if k.feeds == nil {
		if err := k.open(ctx); err != nil {
			return none, err
		}
		return always, nil // a backfill may have been computed before
	}
	changed := none
	for i, f := range k.feeds {
		if f == nil {
			continue
		}
		r := &k.e.plan.reaches[i]
		if err := f.Poll(&k.batch); err != nil {
			f.Close()
			k.feeds[i] = nil
			if errors.Is(err, model.ErrLimit) {
				continue
			}
			return none, err
		}
		if k.batch.Reset || k.batch.Cut > math.MinInt64 {
			changed = always
		}
		k.told += len(k.batch.Series)
		for j := range k.batch.Samples {
			if t := k.batch.Samples[j].T; t+r.from <= last {
				changed.add(t+r.from, t+r.to-1)
			}
		}
	}
	return changed, nil
}
