package shard

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/strandline-db/strandline/shard/model"
)

// Maintain does the background work that is due at now: it removes blocks beyond
// the retention cut, merges small hot blocks, and moves windows that have grown
// old enough from hot to warm and from warm to cold. Each step is one manifest
// transaction; a crash between two steps leaves nothing to repair. What is left when a flush
// is due is for the next time.
func (s *Shard) Maintain(ctx context.Context, now time.Time) error {
	if err := s.maintain.take(ctx); err != nil {
		return err
	}
	defer s.maintain.give()
	if s.failed != nil {
		return s.failed
	}
	s.awaited.Store(false)
	err := s.maintainLocked(ctx, now)
	if err != nil && ctx.Err() == nil {
		s.failed = fmt.Errorf("shard %d: background work: %w", s.opts.ID, err)
		return s.failed
	}
	return err
}

func (s *Shard) maintainLocked(ctx context.Context, now time.Time) error {
	if err := s.dropOld(); err != nil {
		return err
	}
	for _, m := range s.moves() {
		if m.into == Hot {
			if err := s.doChoices(ctx); err != nil {
				return err
			}
		}
		for {
			group, start := s.due(m, now)
			if len(group) == 0 {
				break
			}
			if err := s.merge(ctx, m, group, start); err != nil && !s.spoiled(group, err) {
				return err
			}
			if s.awaited.Load() {
				return nil
			}
		}
	}
	return nil
}

// spoiled tells whether a merge failed because one of its blocks is damaged. That is in quarantine
// now, and its group not due before it is repaired. Nothing of it was removed.
func (s *Shard) spoiled(group []BlockRef, err error) bool {
	bad := s.quarantined()
	return s.failed == nil && model.IsDamage(err) && slices.ContainsFunc(group, func(b BlockRef) bool { return bad[b.Name] })
}

// dropOld removes the blocks that lie wholly before the retention cut.
func (s *Shard) dropOld() error {
	s.head.mu.RLock()
	horizon := s.head.mu.cut
	s.head.mu.RUnlock()
	removed := map[string]bool{}
	for _, b := range s.manifest.Blocks {
		if b.MaxT < horizon {
			removed[b.Name] = true
		}
	}
	if len(removed) == 0 {
		return nil
	}
	next := *s.manifest
	return s.commit(&next, nil, removed, nil)
}

// move is a way for blocks to go: into a tier, once their window has grown older
// than after. Into Hot means merging small blocks of one window.
type move struct {
	into   Tier
	after  time.Duration
	window time.Duration
}

// moves returns all, from the tier that holds the oldest data on.
func (s *Shard) moves() [3]move {
	return [...]move{
		{into: Cold, after: s.opts.ColdAfter, window: s.opts.ColdWindow},
		{into: Warm, after: s.opts.WarmAfter, window: s.opts.WarmWindow},
		{into: Hot, window: s.opts.HotWindow},
	}
}

func (s *Shard) moveInto(t Tier) move { return s.moves()[Cold-t] }

// due returns the blocks of one window that should be merged into m.into now,
// oldest in the log first; none when there is nothing to do.
func (s *Shard) due(m move, now time.Time) ([]BlockRef, int64) {
	width := m.window.Milliseconds()
	bad := s.quarantined()
	groups := map[int64][]BlockRef{}
	for _, b := range s.manifest.Blocks {
		if b.Tier <= m.into {
			start := floorTo(b.MinT, width)
			groups[start] = append(groups[start], b)
		}
	}
	starts := make([]int64, 0, len(groups))
	for start := range groups {
		starts = append(starts, start)
	}
	slices.Sort(starts)
	for _, start := range starts {
		group, end := groups[start], start+width
		if slices.ContainsFunc(group, func(b BlockRef) bool { return bad[b.Name] }) {
			continue
		}
		if s.mustWait(group, m.into) {
			continue
		}
		wanted := slices.ContainsFunc(group, func(b BlockRef) bool { return b.Tier < m.into }) && end <= now.Add(-m.after).UnixMilli()
		if m.into == Hot {
			wanted = len(group) >= s.opts.MergeAt || (len(group) > 1 && end < now.Add(-m.window).UnixMilli())
		}
		if wanted && s.roomFor(group, m.into) {
			return group, start
		}
	}
	return nil, 0
}

// roomFor tells whether a group can be merged into a tier beside the blocks that it is merged
// from, which only go afterwards. What is merged on a disk that has no room ends the shard.
func (s *Shard) roomFor(group []BlockRef, into Tier) bool {
	free, err := s.opts.FS.Free(s.tierDir(into))
	if err != nil {
		return true // it can't be told
	}
	need := s.opts.Reserve
	for _, b := range group {
		need += b.Bytes
	}
	return free >= uint64(need)
}

// mustWait tells whether a group can't be merged into a tier because a choice must look at
// blocks outside of it first, or is done on its own; or should not yet, because a choice about
// it has been made that the manifest will know of with the next flush.
func (s *Shard) mustWait(group []BlockRef, into Tier) bool {
	made := s.head.lastChoice()
	return slices.ContainsFunc(group, func(b BlockRef) bool {
		if into != Hot && made.Index > s.manifest.Applied && b.MinT < made.T {
			return true
		}
		if !b.pending(s.manifest.Choices) {
			return false
		}
		whole, _, _ := s.closeGroup(&b)
		return into == Hot || whole > into
	})
}

// merge writes a group of blocks as one block of the move's tier.
func (s *Shard) merge(ctx context.Context, m move, group []BlockRef, start int64) error {
	v := s.live.acquire()
	err := s.mergeFrom(ctx, v, m, group, start)
	if rerr := v.release(); err == nil {
		err = rerr
	}
	return err
}

func (s *Shard) mergeFrom(ctx context.Context, v *view, m move, group []BlockRef, start int64) error {
	s.fail("merge-start")
	src, removed := &blockSource{s: s}, map[string]bool{}
	plan := blockPlan{tier: m.into, window: m.window, starts: []int64{start}, horizon: s.manifest.Cut, from: group[0].FromIndex}
	for _, b := range v.blocks {
		if slices.ContainsFunc(group, func(g BlockRef) bool { return g.Name == b.ref.Name }) {
			src.cursors = append(src.cursors, &cursor{b: b})
			removed[b.ref.Name] = true
			plan.from, plan.to = min(plan.from, b.ref.FromIndex), max(plan.to, b.ref.ToIndex)
		}
	}
	plan.chosen = lastChoice(s.manifest)
	if slices.ContainsFunc(group, func(b BlockRef) bool { return b.pending(s.manifest.Choices) }) {
		if err := src.findPairs(s.manifest.Choices, s.manifest.Cut); err != nil {
			return err
		}
	}
	if err := src.start(); err != nil {
		return err
	}
	added, lost, err := s.writeBlocks(ctx, src, plan)
	if err == nil {
		err = src.err
	}
	if err != nil {
		return err
	}
	s.fail("merge-before-manifest")
	next := *s.manifest
	if err := s.commit(&next, added, removed, nil); err != nil {
		s.failed = fmt.Errorf("shard %d: merge: %w", s.opts.ID, err)
		return s.failed
	}
	s.fail("merge-after-manifest")
	s.head.countLost(&lost)
	s.opts.Logger.Debug("merged blocks", "shard", s.opts.ID, "tier", m.into.String(), "blocks", len(group))
	return nil
}

// cursor walks one block in order of key.
type cursor struct {
	b   *liveBlock
	ord uint32
	end bool
	key []byte
	no  uint64
}

func (c *cursor) load(r *seriesReader) (err error) {
	if c.end = int(c.ord) >= c.b.r.Meta().Series; c.end {
		return nil
	}
	c.key, c.no, r.metas, err = c.b.r.Series(c.ord, c.key[:0], r.metas[:0])
	return err
}

// blockSource merges blocks by key; its cursors are oldest in the log first.
type blockSource struct {
	s       *Shard
	cursors []*cursor
	current []*cursor // at the current key
	key     string
	pairs   map[string]*selected // series of which not all is kept; nil without a choice
	r       seriesReader
	err     error // of next
}

func (f *blockSource) start() error {
	for _, c := range f.cursors {
		if err := c.load(&f.r); err != nil {
			return f.s.suspect(c.b, err)
		}
	}
	return nil
}

func (f *blockSource) next() (string, uint32, bool) {
	for _, c := range f.current {
		c.ord++
		if f.err = c.load(&f.r); f.err != nil {
			f.err = f.s.suspect(c.b, f.err)
			return "", 0, false
		}
	}
	f.current = f.current[:0]
	for _, c := range f.cursors {
		if c.end {
			continue
		}
		cmp := -1
		if len(f.current) > 0 {
			cmp = bytes.Compare(c.key, f.current[0].key)
		}
		if cmp < 0 {
			f.current = f.current[:0]
		}
		if cmp <= 0 {
			f.current = append(f.current, c)
		}
	}
	if len(f.current) == 0 {
		return "", 0, false
	}
	last := f.current[len(f.current)-1]
	f.key = strings.Clone(string(last.key))
	return f.key, uint32(last.no), true
}

func (f *blockSource) read(m *merger, ex []blob) ([]blob, error) {
	if x := f.pairs[f.key]; x != nil {
		if err := x.gatherChosen(&f.r); err != nil {
			return ex, err
		}
		*m, f.r.m = f.r.m, *m
		return append(ex, f.r.ex...), nil
	}
	f.r.m.reset()
	f.r.ex = f.r.ex[:0]
	for _, c := range f.current {
		if err := f.r.readBlock(c.b.r, c.ord, math.MinInt64, math.MaxInt64); err != nil {
			return ex, f.s.suspect(c.b, err)
		}
	}
	*m, f.r.m = f.r.m, *m // the other is reset before it is read into
	return append(ex, f.r.ex...), nil
}
