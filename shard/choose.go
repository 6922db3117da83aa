package shard

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
)

// A Choice is a log entry by which, of series that differ in one label only, the samples
// before T that package pair does not choose are gone: those that entries up to Index
// have brought. What comes later for the time before T is there beside them, until the
// next choice looks at all of it.
//
// That is what the shard holds from this entry on, on every replica. When the samples
// leave the disk is each replica's own affair: a merge drops them, and until then what
// reads works the choice out. So the two must be told apart for ever, what came before a
// choice and what came behind it: a generation of the head ends at a choice that touches
// it, and blocks are only joined across one once it is done.
type Choice struct {
	Index uint64 `json:"index"` // of the log entry
	T     int64  `json:"t"`     // milliseconds, a multiple of pair.Bucket
	Label string `json:"label"`
}

// AppendChooseOp appends an operation that makes the choice among senders, told apart by
// label, for all samples before t (milliseconds).
func AppendChooseOp(dst []byte, t int64, label string) []byte {
	dst = binary.AppendVarint(append(dst, opChoose), t)
	return append(binary.AppendUvarint(dst, uint64(len(label))), label...)
}

// chooseLocked makes a choice, at the end of its entry: all that the entry brought comes
// before it. One that does not reach beyond the last, or goes by another label, is none.
func (h *head) chooseLocked(c Choice) {
	c.T = floorTo(c.T, pair.Bucket)
	if n := len(h.mu.choices); c.Label == "" || n > 0 && (c.T <= h.mu.choices[n-1].T || c.Label != h.mu.choices[n-1].Label || c.Index <= h.mu.choices[n-1].Index) {
		return
	}
	h.mu.choices = append(slices.Clip(h.mu.choices), c) // readers have the old ones
	for _, s := range h.mu.held {
		if s.lastT < c.T {
			s.hidden = true // the sample at lastT may be gone: a retry of it brings something
		}
		if s.active.any() && s.active.minT < c.T {
			s.endGeneration(c.Index)
		}
	}
	if h.anyWatchLocked() {
		h.resetWatchesLocked()
	}
}

// stage returns which choice is the first to look at what came with entries up to to, of
// which the choices up to the entry chosen are done; len(cs) if none does.
func stage(cs []Choice, to, chosen uint64) int {
	i := len(cs)
	for i > 0 && cs[i-1].Index >= to && cs[i-1].Index > chosen {
		i--
	}
	return i
}

// pending tells whether a block holds what a choice has dropped, as far as can be told
// from the block alone.
func (b *BlockRef) pending(cs []Choice) bool {
	if b.Chosen > 0 && b.ToIndex <= b.Chosen && b.MaxT < b.ChosenT {
		return false // all of it was chosen together, and choosing again changes nothing
	}
	return touched(cs[stage(cs, b.ToIndex, b.Chosen):], b.MinT)
}

// choicesLeft returns the last choice, and those before it if a block must still hear of one.
func (m *Manifest) choicesLeft() []Choice {
	n := len(m.Choices)
	if n < 2 || slices.ContainsFunc(m.Blocks, func(b BlockRef) bool { return b.pending(m.Choices) }) {
		return m.Choices
	}
	return m.Choices[n-1:]
}

// lastChoice returns the last choice that a manifest covers.
func lastChoice(m *Manifest) Choice {
	if n := len(m.Choices); n > 0 {
		return m.Choices[n-1]
	}
	return Choice{}
}

// touched tells whether one of the choices is about a time from minT on.
func touched(cs []Choice, minT int64) bool {
	return slices.ContainsFunc(cs, func(c Choice) bool { return minT < c.T })
}

// pairGroup is what differs in the label of the senders only.
type pairGroup struct {
	s       *Shard
	members []*selected // in order of their labels
	choices []Choice
	minT    int64 // what is read, in whole buckets above the retention cut
	maxT    int64
}

// pairGroups gathers the groups of series that have more than one member.
type pairGroups struct {
	label string
	byKey map[string][]*selected
	buf   []byte
}

func (g *pairGroups) add(x *selected) {
	g.buf = model.AppendKeyWithout(g.buf[:0], []byte(x.key), g.label)
	g.byKey[string(g.buf)] = append(g.byKey[string(g.buf)], x)
}

// each calls fn with the members of each group, sorted as the pair's reader sorts them.
func (g *pairGroups) each(fn func(members []*selected)) {
	for _, members := range g.byKey {
		if len(members) < 2 {
			continue
		}
		for _, x := range members {
			x.labels = model.KeyLabels([]byte(x.key))
		}
		slices.SortFunc(members, func(a, b *selected) int { return labels.Compare(a.labels, b.labels) })
		fn(members)
	}
}

// heed prepares a selection for the choices that may touch its range: it then looks at the
// series of all senders, and at whole buckets.
func (sel *Selection) heed(cs []Choice, cut int64) {
	if len(cs) == 0 || sel.minT >= cs[len(cs)-1].T {
		return
	}
	label := cs[len(cs)-1].Label
	all := make([]*labels.Matcher, 0, len(sel.matchers))
	for _, m := range sel.matchers {
		if m.Name == label {
			sel.sender = append(sel.sender, m)
		} else {
			all = append(all, m)
		}
	}
	sel.choices, sel.matchers = cs, all
	if sel.lo > math.MinInt64+pair.Bucket {
		sel.lo = max(floorTo(sel.lo, pair.Bucket), cut)
	}
	if sel.hi < math.MaxInt64-pair.Bucket {
		sel.hi = floorTo(sel.hi, pair.Bucket) + pair.Bucket - 1
	}
}

// workOut finds the groups of series of which not all may be shown that is there.
func (sel *Selection) workOut(byKey map[string]*selected) {
	if sel.choices == nil {
		return
	}
	g := pairGroups{label: sel.choices[len(sel.choices)-1].Label, byKey: map[string][]*selected{}}
	for _, x := range byKey {
		g.add(x)
	}
	g.each(func(members []*selected) {
		if slices.ContainsFunc(members, func(x *selected) bool { return x.pending(sel.choices) }) {
			group := &pairGroup{s: sel.s, members: members, choices: sel.choices, minT: sel.lo, maxT: sel.hi}
			for _, x := range members {
				x.group = group
			}
		}
	})
}

// pending tells whether a choice is not done in one of the series' parts.
func (x *selected) pending(cs []Choice) bool {
	return slices.ContainsFunc(x.blocks, func(p blockPart) bool { return p.b.ref.pending(cs) }) ||
		slices.ContainsFunc(x.heads, func(p headPart) bool { return touched(cs[stage(cs, p.to, 0):], p.minT) })
}

// groupScratch is the scratch of reading a group.
type groupScratch struct {
	members []*merger
	parts   []*model.Columns
	chooser pair.Chooser
}

func (g *groupScratch) reset(n int) {
	for len(g.members) < n {
		g.members, g.parts = append(g.members, &merger{}), append(g.parts, &model.Columns{})
	}
	for _, m := range g.members[:n] {
		m.reset()
	}
}

// gatherChosen is gather for a series of a group of which choices are not done on disk:
// it follows the log, choice by choice, and leaves in r what the series still has.
func (x *selected) gatherChosen(r *seriesReader) error {
	g, cs := x.group, x.group.choices
	r.ex = r.ex[:0]
	r.group.reset(len(g.members))
	done := int64(math.MinInt64) // before it nothing is left to choose
	for k := range cs {
		newest, came := int64(math.MinInt64), false
		for i, y := range g.members {
			m := r.group.members[i]
			any, err := y.gatherStage(r, m, k, y == x)
			if err != nil {
				return err
			}
			if came = came || any; any {
				m.finish()
				m.clip(g.minT, g.maxT)
				m.again()
			}
			newest = max(newest, m.newest())
		}
		if came || newest >= done {
			if err := r.group.choose(len(g.members), cs[k].T); err != nil {
				return err
			}
		}
		done = cs[k].T
	}
	m := r.group.members[slices.Index(g.members, x)]
	if _, err := x.gatherStage(r, m, len(cs), true); err != nil {
		return err
	}
	m.finish()
	m.clip(g.minT, g.maxT)
	m.again() // whoever finishes it again
	*m, r.m = r.m, *m
	r.ex, _ = sortBlobs(r.ex)
	r.ex = clipBlobs(r.ex, g.minT, g.maxT)
	return nil
}

// gatherStage appends to m what the choice k is the first to look at. Exemplars, which
// choices leave alone, are only wanted of the series that is read.
func (x *selected) gatherStage(r *seriesReader, m *merger, k int, exemplars bool) (any bool, err error) {
	g := x.group
	*m, r.m = r.m, *m
	had := len(r.ex)
	for _, p := range x.blocks {
		if stage(g.choices, p.b.ref.ToIndex, p.b.ref.Chosen) != k {
			continue
		}
		any = true
		if err = r.readBlock(p.b.r, p.ord, g.minT, g.maxT); err != nil {
			err = g.s.suspect(p.b, err)
			break
		}
	}
	for _, p := range x.heads {
		if err != nil || stage(g.choices, p.to, 0) != k {
			continue
		}
		any = true
		if err = p.store.read(&r.dec, &r.m); err == nil && p.store.more != nil {
			r.ex = append(r.ex, p.store.more.exemplars...)
		}
	}
	if !exemplars {
		r.ex = r.ex[:had]
	}
	*m, r.m = r.m, *m
	return any, err
}

// again makes what is finished one source, behind which others may be added.
func (m *merger) again() { m.starts = append(m.starts[:0], sourceStart{}) }

// newest returns the time of the newest sample of a finished merger.
func (m *merger) newest() int64 {
	t := int64(math.MinInt64)
	if n := len(m.cols.T); n > 0 {
		t = m.cols.T[n-1]
	}
	if n := len(m.hist); n > 0 {
		t = max(t, m.hist[n-1].t)
	}
	return t
}

// choose drops from the first n members, which are finished, what is not chosen of the
// time before t.
func (g *groupScratch) choose(n int, t int64) error {
	for i, m := range g.members[:n] {
		p, c := g.parts[i], &m.cols
		k, _ := slices.BinarySearch(c.T, t)
		clear(p.Hist)
		p.T, p.V, p.ST, p.Hist = c.T[:k], c.V[:k], c.ST[:min(k, len(c.ST))], p.Hist[:0]
		for _, b := range m.hist {
			if b.t >= t {
				break
			}
			h, err := DecodeHistogram(b.data, b.t, b.st)
			if err != nil {
				return err
			}
			p.Hist = append(p.Hist, h)
		}
	}
	before := make([]int, n)
	for i, p := range g.parts[:n] {
		before[i] = len(p.T)
	}
	g.chooser.Keep(g.parts[:n])
	for i, m := range g.members[:n] {
		p, c, k := g.parts[i], &m.cols, before[i]
		had := len(m.hist)
		if len(c.ST) > 0 {
			c.ST = append(c.ST[:len(p.ST)], c.ST[k:]...)
		}
		c.T, c.V = append(c.T[:len(p.T)], c.T[k:]...), append(c.V[:len(p.V)], c.V[k:]...)
		kept := p.Hist
		m.hist = slices.DeleteFunc(m.hist, func(b blob) bool {
			if b.t >= t {
				return false
			}
			if len(kept) > 0 && kept[0].T == b.t {
				kept = kept[1:]
				return false
			}
			return true
		})
		m.unchosen += int64(k - len(p.T) + had - len(m.hist))
	}
	return nil
}

// DueChoice returns the time before which the shard should choose among senders now: the
// last boundary of a warm block's window that is old enough to turn warm. It is due when it
// is beyond the last choice, and the shard has series of a pair and samples of that time.
func (s *Shard) DueChoice(now time.Time, label string) (t int64, due bool) {
	if label == "" || s.opts.HotWindow.Milliseconds()%pair.Bucket != 0 {
		return 0, false
	}
	t = floorTo(now.Add(-s.opts.WarmAfter).UnixMilli(), s.opts.WarmWindow.Milliseconds())
	wanted, due := s.head.dueChoice(t, label)
	if !wanted || due {
		return t, due
	}
	v := s.live.acquire()
	due = slices.ContainsFunc(v.blocks, func(b *liveBlock) bool { return b.ref.MinT < t && b.hasLabel(label) })
	if err := v.release(); err != nil {
		s.opts.Logger.Error("closing a block", "err", err)
	}
	return t, due
}

// lastChoice returns the last choice that was applied.
func (h *head) lastChoice() Choice {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if n := len(h.mu.choices); n > 0 {
		return h.mu.choices[n-1]
	}
	return Choice{}
}

// dueChoice tells whether a choice would be one, and whether the head has reason for it.
func (h *head) dueChoice(t int64, label string) (wanted, due bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	n := len(h.mu.choices)
	if n > 0 && (t <= h.mu.choices[n-1].T || h.mu.choices[n-1].Label != label) {
		return false, false
	}
	if h.mu.minT >= t {
		return true, false
	}
	ids, err := h.mu.postings.Has(label)
	return true, err == nil && len(ids) > 0
}

// hasLabel tells whether a block has a series with the label; also if it can't be read.
func (b *liveBlock) hasLabel(name string) bool { return b.r == nil || b.r.HasName(name) }

// closeGroup returns the blocks that a choice about one of a window's blocks must look at:
// all that may hold samples of its time. into is the tier of the largest.
func (s *Shard) closeGroup(b *BlockRef) (into Tier, group []BlockRef, start int64) {
	for _, m := range s.moves() {
		width := m.window.Milliseconds()
		start = floorTo(b.MinT, width)
		group = group[:0]
		largest := Hot
		for _, x := range s.manifest.Blocks {
			if x.Tier <= m.into && floorTo(x.MinT, width) == start {
				group, largest = append(group, x), max(largest, x.Tier)
			}
		}
		if largest == m.into {
			return m.into, group, start
		}
	}
	return Hot, group, start
}

// doChoices does, window by window, the choices that no merge on the way to another tier has done.
func (s *Shard) doChoices(ctx context.Context) error {
	for ctx.Err() == nil && !s.awaited.Load() {
		group, into, start := s.dueChoice()
		if len(group) == 0 {
			return nil
		}
		if err := s.doChoice(ctx, group, into, start); err != nil && !s.spoiled(group, err) {
			return err
		}
	}
	return context.Cause(ctx)
}

func (s *Shard) dueChoice() (group []BlockRef, into Tier, start int64) {
	bad := s.quarantined()
	for i := range s.manifest.Blocks {
		b := &s.manifest.Blocks[i]
		if !b.pending(s.manifest.Choices) {
			continue
		}
		into, group, start = s.closeGroup(b)
		if !slices.ContainsFunc(group, func(x BlockRef) bool { return bad[x.Name] }) && s.roomFor(group, into) {
			return group, into, start
		}
	}
	return nil, Hot, 0
}

func (s *Shard) doChoice(ctx context.Context, group []BlockRef, into Tier, start int64) error {
	label := lastChoice(s.manifest).Label
	v := s.live.acquire()
	anyPair := slices.ContainsFunc(v.blocks, func(b *liveBlock) bool {
		return b.hasLabel(label) && slices.ContainsFunc(group, func(g BlockRef) bool { return g.Name == b.ref.Name })
	})
	if err := v.release(); err != nil {
		return err
	}
	if !anyPair {
		return s.noteChosen(group)
	}
	return s.merge(ctx, s.moveInto(into), group, start)
}

// noteChosen records that there is nothing to choose in blocks.
func (s *Shard) noteChosen(group []BlockRef) error {
	last := lastChoice(s.manifest)
	noted := *s.manifest
	noted.Blocks = slices.Clone(noted.Blocks)
	for i := range noted.Blocks {
		if slices.ContainsFunc(group, func(g BlockRef) bool { return g.Name == noted.Blocks[i].Name }) {
			noted.Blocks[i].Chosen, noted.Blocks[i].ChosenT = last.Index, last.T
		}
	}
	s.manifest = &noted
	next := noted
	return s.commit(&next, nil, nil, nil)
}

// findPairs finds the series of the cursors' blocks of which the merge must choose.
func (f *blockSource) findPairs(cs []Choice, cut int64) error {
	label := cs[len(cs)-1].Label
	if !slices.ContainsFunc(f.cursors, func(c *cursor) bool { return c.b.hasLabel(label) }) {
		return nil
	}
	g := pairGroups{label: label, byKey: map[string][]*selected{}}
	byKey := map[string]*selected{}
	for _, c := range f.cursors {
		for ord := range c.b.r.Meta().Series {
			key, _, _, err := c.b.r.Series(uint32(ord), f.r.key[:0], f.r.metas[:0])
			if f.r.key = key; err != nil {
				return f.s.suspect(c.b, err)
			}
			x := byKey[string(key)]
			if x == nil {
				x = &selected{key: string(key)}
				byKey[x.key] = x
				g.add(x)
			}
			x.blocks = append(x.blocks, blockPart{b: c.b, ord: uint32(ord)})
		}
	}
	f.pairs = map[string]*selected{}
	g.each(func(members []*selected) {
		group := &pairGroup{s: f.s, members: members, choices: cs, minT: cut, maxT: math.MaxInt64}
		for _, x := range members {
			x.group = group
			f.pairs[x.key] = x
		}
	})
	return nil
}
