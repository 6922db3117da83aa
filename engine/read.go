package engine

import (
	"context"
	"runtime"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal"
)

var (
	_ model.Reader = (*DB)(nil)
	_ model.Placed = (*part)(nil)
)

// part reads some of the shards.
type part struct {
	db     *DB
	shards []*shard.Shard
}

// PairLabel implements model.Placed.
func (p *part) PairLabel() string { return p.db.pairLabel }

func (db *DB) whole() *part { return &part{db, db.shards} }

// fanOut runs fn on every shard, in parallel, and returns the first error.
func fanOut[T any](ctx context.Context, p *part, fn func(context.Context, *shard.Shard) (T, error)) ([]T, error) {
	out := make([]T, len(p.shards))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, s := range p.shards {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			v, err := fn(ctx, s)
			out[i] = v
			return err
		})
	}
	return out, g.Wait()
}

// Select implements model.Reader.
func (db *DB) Select(ctx context.Context, req *model.SelectRequest) (*model.Selection, error) {
	return db.whole().Select(ctx, req)
}

// LabelNames implements model.Reader.
func (db *DB) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	return db.whole().LabelNames(ctx, req)
}

// LabelValues implements model.Reader.
func (db *DB) LabelValues(ctx context.Context, name string, req *model.SelectRequest) ([]string, error) {
	return db.whole().LabelValues(ctx, name, req)
}

// Exemplars implements model.Reader.
func (db *DB) Exemplars(ctx context.Context, req *model.SelectRequest) ([]model.SeriesExemplars, error) {
	return db.whole().Exemplars(ctx, req)
}

// Select implements model.Reader.
func (p *part) Select(ctx context.Context, req *model.SelectRequest) (*model.Selection, error) {
	parts, err := fanOut(ctx, p, func(ctx context.Context, s *shard.Shard) (*shard.Selection, error) {
		return s.Select(ctx, req)
	})
	release := func() {
		for _, x := range parts {
			if x == nil {
				continue
			}
			if err := x.Close(); err != nil {
				p.db.opts.Logger.Error("closing a block", "err", err)
			}
		}
	}
	if err != nil {
		release()
		return nil, err
	}
	sel := &model.Selection{Release: release}
	for _, x := range parts {
		sel.Series = append(sel.Series, x.Series...)
	}
	if req.MaxSeries > 0 && len(sel.Series) > req.MaxSeries {
		sel.Close()
		return nil, &model.LimitError{What: "series", Limit: int64(req.MaxSeries), Flag: "query-max-series"}
	}
	slices.SortFunc(sel.Series, func(a, b model.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return sel, nil
}

// LabelNames implements model.Reader.
func (p *part) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	parts, err := fanOut(ctx, p, func(ctx context.Context, s *shard.Shard) ([]string, error) {
		return s.LabelNames(ctx, req)
	})
	return union(parts), err
}

// LabelValues implements model.Reader.
func (p *part) LabelValues(ctx context.Context, name string, req *model.SelectRequest) ([]string, error) {
	parts, err := fanOut(ctx, p, func(ctx context.Context, s *shard.Shard) ([]string, error) {
		return s.LabelValues(ctx, name, req)
	})
	return union(parts), err
}

func union(parts [][]string) []string {
	out := slices.Concat(parts...)
	slices.Sort(out)
	return slices.Compact(out)
}

// Exemplars implements model.Reader.
func (p *part) Exemplars(ctx context.Context, req *model.SelectRequest) ([]model.SeriesExemplars, error) {
	parts, err := fanOut(ctx, p, func(ctx context.Context, s *shard.Shard) ([]model.SeriesExemplars, error) {
		return s.Exemplars(ctx, req)
	})
	out := slices.Concat(parts...)
	slices.SortFunc(out, func(a, b model.SeriesExemplars) int { return labels.Compare(a.Labels, b.Labels) })
	return out, err
}

// Metadata implements model.Reader.
func (p *part) Metadata(ctx context.Context, metric string) ([]model.Metadata, error) {
	return p.db.Metadata(ctx, metric)
}

// Metadata implements model.Reader.
func (db *DB) Metadata(ctx context.Context, metric string) ([]model.Metadata, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return db.meta.get(metric), nil
}

// Stats are totals over all shards.
type Stats struct {
	shard.Stats
	Shards   int
	ReadOnly bool
	Feeds    int // open ones
	Log      wal.Stats
}

// Stats returns the engine's figures at one moment.
func (db *DB) Stats() Stats {
	t := Stats{Shards: len(db.shards), ReadOnly: db.readOnly.Load(), Feeds: db.feeds.Len(), Log: db.log.Stats()}
	for i, s := range db.shards {
		x := s.Stats()
		if i == 0 {
			t.HeadMinT, t.Cut = x.HeadMinT, x.Cut
		}
		t.add(&x)
	}
	return t
}

func (t *Stats) add(x *shard.Stats) {
	t.Samples += x.Samples
	t.Duplicates += x.Duplicates
	t.Overwritten += x.Overwritten
	t.TooOld += x.TooOld
	t.Unchosen += x.Unchosen
	t.Histograms += x.Histograms
	t.Counts.Exemplars += x.Counts.Exemplars
	t.Series += x.Series
	t.HeadSamples += x.HeadSamples
	t.HeadBytes += x.HeadBytes
	t.HeadMinT = min(t.HeadMinT, x.HeadMinT)
	t.Cut = max(t.Cut, x.Cut)
	for i := range x.Blocks {
		t.Blocks[i] += x.Blocks[i]
		t.BlockBytes[i] += x.BlockBytes[i]
	}
	t.Applied += x.Applied
}
