package engine

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"

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

// fanOut runs fn for every shard, by its place in the part, in parallel, and returns the
// first error.
func fanOut[T any](ctx context.Context, p *part, fn func(context.Context, int) (T, error)) ([]T, error) {
	out := make([]T, len(p.shards))
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(out)) {
		g.Go(func() error {
			for i := int(next.Add(1)) - 1; i < len(out); i = int(next.Add(1)) - 1 {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				var err error
				if out[i], err = fn(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return out, g.Wait()
}

// Select returns the series that match req and may have samples in its range, sorted by
// labels. The caller closes the selection when it has read it.
func (db *DB) Select(ctx context.Context, req *model.SelectRequest) (*model.Selection, error) {
	return model.Select(ctx, db, req)
}

// SelectAll implements model.Reader. All shards are seen at one instant, at which each batch is
// there as a whole or not at all; with Options.Replicate only each shard is.
func (db *DB) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	return db.whole().SelectAll(ctx, reqs)
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

// SelectAll implements model.Reader.
func (p *part) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	parts := p.fix(reqs)
	_, err := fanOut(ctx, p, func(ctx context.Context, i int) (struct{}, error) {
		for _, x := range parts[i] {
			if err := x.Fill(ctx); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	out := make([]*model.Selection, len(reqs))
	for k, req := range reqs {
		if out[k] = p.join(parts, k); err == nil {
			err = req.Allows(len(out[k].Series))
		}
	}
	if err != nil {
		model.CloseAll(out)
		return nil, err
	}
	return out, nil
}

// fix fixes what selections of each shard show: at one instant of all of them if they have one
// log. Shards with a log each are not held for each other.
func (p *part) fix(reqs []*model.SelectRequest) [][]*shard.Selection {
	hold := func(i int) shard.Held { return p.shards[i].Hold() }
	if p.db.opts.Replicate == nil {
		held := p.hold()
		hold = func(i int) shard.Held { return held[i] }
	}
	out, _ := fanOut(context.Background(), p, func(_ context.Context, i int) ([]*shard.Selection, error) {
		return hold(i).Fix(reqs), nil
	})
	return out
}

// hold holds all shards at an instant at which no group is applied.
func (p *part) hold() []shard.Held {
	held := make([]shard.Held, len(p.shards))
	p.db.applying.Lock()
	defer p.db.applying.Unlock()
	for i, s := range p.shards {
		held[i] = s.Hold()
	}
	return held
}

// join makes one selection of what each shard has for the request with a number.
func (p *part) join(parts [][]*shard.Selection, k int) *model.Selection {
	sel := &model.Selection{Release: func() {
		for _, x := range parts {
			if err := x[k].Close(); err != nil {
				p.db.opts.Logger.Error("closing a block", "err", err)
			}
		}
	}}
	for _, x := range parts {
		sel.Series = append(sel.Series, x[k].Series...)
	}
	slices.SortFunc(sel.Series, func(a, b model.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return sel
}

// LabelNames implements model.Reader.
func (p *part) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	parts, err := fanOut(ctx, p, func(ctx context.Context, i int) ([]string, error) {
		return p.shards[i].LabelNames(ctx, req)
	})
	return union(parts), err
}

// LabelValues implements model.Reader.
func (p *part) LabelValues(ctx context.Context, name string, req *model.SelectRequest) ([]string, error) {
	parts, err := fanOut(ctx, p, func(ctx context.Context, i int) ([]string, error) {
		return p.shards[i].LabelValues(ctx, name, req)
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
	parts, err := fanOut(ctx, p, func(ctx context.Context, i int) ([]model.SeriesExemplars, error) {
		return p.shards[i].Exemplars(ctx, req)
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
