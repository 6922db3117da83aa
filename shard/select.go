package shard

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/block"
	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/index"
	"github.com/strandline-db/strandline/shard/model"
)

// selected is one series of a selection: where its samples lie, oldest in the log
// first. It implements model.Series.
type selected struct {
	key    string
	labels labels.Labels
	blocks []blockPart
	heads  []headPart
	sel    *Selection
	wanted bool       // it matches, and has something in the selection's range
	group  *pairGroup // set if choices are to be worked out
}

// taken is a generation of a series of the head that a selection has taken.
type taken struct {
	headPart // without a store if samples are not wanted
	key      string
	wanted   bool // see selected
}

// headPart is a generation of the head.
type headPart struct {
	*store
	to uint64 // the last entry that it may hold
}

type blockPart struct {
	b   *liveBlock
	ord uint32
}

// Selection is a shard's answer to a Select; it pins the blocks it reads from. It is made in
// two steps, of which the first, that fixes what it shows, is quick.
type Selection struct {
	Series     []model.Series // sorted by labels
	minT, maxT int64          // already clipped to the retention cut
	choices    []Choice       // that may touch the range; nil: none
	lo, hi     int64          // what is looked at: the range, or the whole buckets round it
	matchers   []*labels.Matcher
	sender     []*labels.Matcher // that only say which senders' series are wanted
	applied    uint64            // the last entry that it shows
	s          *Shard
	v          *view
	readers    sync.Pool
	most       int     // series; 0: no limit
	taken      []taken // until it is filled
	err        error   // of the head's part
}

// Close unpins the blocks.
func (s *Selection) Close() error { return s.v.release() }

// Held is a shard that shows what it did when it was held: what comes meanwhile waits.
type Held struct{ s *Shard }

// Hold holds the shard until Fix, which is to be called soon, and once.
func (s *Shard) Hold() Held {
	s.head.mu.RLock()
	return Held{s}
}

// Fix fixes what selections show, all of one instant, and lets go of the shard. Each is to
// be filled before its series are there, and closed.
func (h Held) Fix(reqs []*model.SelectRequest) []*Selection { return h.fix(reqs, true) }

func (h Held) fix(reqs []*model.SelectRequest, samples bool) []*Selection {
	defer h.s.head.mu.RUnlock()
	out := make([]*Selection, len(reqs))
	for i, req := range reqs {
		out[i] = h.s.fixLocked(req, samples)
	}
	return out
}

// Select returns the series that match req and may have samples in its range. The
// caller closes the selection.
func (s *Shard) Select(ctx context.Context, req *model.SelectRequest) (*Selection, error) {
	return s.selectKinds(ctx, req, true)
}

func (s *Shard) selectKinds(ctx context.Context, req *model.SelectRequest, samples bool) (*Selection, error) {
	sel := s.Hold().fix([]*model.SelectRequest{req}, samples)[0]
	if err := sel.Fill(ctx); err != nil {
		_ = sel.Close() // the first error is the one that tells
		return nil, err
	}
	return sel, nil
}

// Fill reads the blocks' indexes: the series are there then. It is to be called once.
func (sel *Selection) Fill(ctx context.Context) error {
	if sel.err != nil {
		return sel.err
	}
	byKey := sel.addTaken()
	if err := sel.tooMany(len(byKey)); err != nil {
		return err
	}
	for _, b := range sel.v.blocks {
		if b.ref.MaxT < sel.lo || b.ref.MinT > sel.hi {
			continue
		}
		if err := sel.addBlock(ctx, b, byKey); err != nil {
			return fmt.Errorf("shard %d: %w", sel.s.opts.ID, err)
		}
		if err := sel.tooMany(len(byKey)); err != nil {
			return err
		}
	}
	sel.workOut(byKey)
	sel.Series = make([]model.Series, 0, len(byKey))
	for _, x := range byKey {
		if x.labels = model.KeyLabels([]byte(x.key)); x.wanted && matchAll(x.labels, sel.sender) {
			sel.Series = append(sel.Series, x)
		}
	}
	if sel.most > 0 && len(sel.Series) > sel.most {
		return model.TooManySeries(sel.most)
	}
	slices.SortFunc(sel.Series, func(a, b model.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return nil
}

// tooMany is the error of more series than were asked for, as soon as that is sure.
func (sel *Selection) tooMany(series int) error {
	if sel.most > 0 && sel.sender == nil && series > sel.most {
		return model.TooManySeries(sel.most)
	}
	return nil
}

// fixLocked takes the matching series of the head and, in the same instant, the view of
// the blocks that goes with it.
func (s *Shard) fixLocked(req *model.SelectRequest, samples bool) *Selection {
	h := s.head
	sel := &Selection{s: s, minT: max(req.MinT, h.mu.cut), maxT: req.MaxT, matchers: req.Matchers, most: req.MaxSeries,
		applied: h.mu.applied, v: s.live.acquire()}
	sel.readers.New = func() any { return &seriesReader{} }
	if sel.lo, sel.hi = sel.minT, sel.maxT; samples {
		sel.heed(h.mu.choices, h.mu.cut)
	}
	sel.err = sel.takeHeads(h, samples)
	return sel
}

// takeHeads takes what writes may change, and no more: they wait for it.
func (sel *Selection) takeHeads(h *head, samples bool) error {
	ids, err := index.Select(h.mu.postings, sel.matchers)
	if err != nil {
		return err
	}
	sel.taken = make([]taken, 0, min(len(ids), 1024))
	known := 0 // series with a number, of which no two are the same
	for _, id := range ids {
		x, had := h.mu.held[id], len(sel.taken)
		for g := x.older; g != nil; g = g.next {
			sel.takeHead(x, headPart{&g.store, g.to}, samples)
		}
		sel.takeHead(x, headPart{&x.active, math.MaxUint64}, samples)
		if sel.most > 0 && len(sel.taken) > had && h.mu.byNo.get(id) != nil {
			known++
		}
		if err := sel.tooMany(known); err != nil {
			return err
		}
	}
	return nil
}

func (sel *Selection) takeHead(x *series, p headPart, samples bool) {
	if !p.any() || p.maxT < sel.lo || p.minT > sel.hi {
		return
	}
	y := taken{key: x.key, wanted: p.maxT >= sel.minT && p.minT <= sel.maxT}
	if samples {
		y.headPart = headPart{p.snapshot(), p.to}
	}
	sel.taken = append(sel.taken, y)
}

// addTaken makes series, by key, of what was taken of the head.
func (sel *Selection) addTaken() map[string]*selected {
	byKey := make(map[string]*selected, len(sel.taken))
	for i := range sel.taken {
		p := &sel.taken[i]
		x := byKey[p.key]
		if x == nil {
			x = &selected{key: p.key, sel: sel}
			byKey[p.key] = x
		}
		x.wanted = x.wanted || p.wanted
		if p.store != nil {
			x.heads = append(x.heads, p.headPart)
		}
	}
	sel.taken = nil
	return byKey
}

func (sel *Selection) addBlock(ctx context.Context, b *liveBlock, byKey map[string]*selected) error {
	if b.r == nil {
		return *b.bad.Load()
	}
	ords, err := b.r.Select(ctx, sel.matchers)
	if err != nil {
		return sel.s.suspect(b, err)
	}
	var key []byte
	var metas []block.ChunkMeta
	for _, ord := range ords {
		if key, _, metas, err = b.r.Series(ord, key[:0], metas[:0]); err != nil {
			return sel.s.suspect(b, err)
		}
		if !anyChunk(metas, sel.lo, sel.hi) {
			continue
		}
		x := byKey[string(key)]
		if x == nil {
			x = &selected{key: string(key), sel: sel}
			byKey[x.key] = x
		}
		x.blocks = append(x.blocks, blockPart{b: b, ord: ord})
		x.wanted = x.wanted || anyChunk(metas, sel.minT, sel.maxT)
	}
	return nil
}

func anyChunk(metas []block.ChunkMeta, minT, maxT int64) bool {
	return slices.ContainsFunc(metas, func(m block.ChunkMeta) bool { return m.MaxT >= minT && m.MinT <= maxT })
}

// Labels implements model.Series.
func (x *selected) Labels() labels.Labels { return x.labels }

// seriesReader is the scratch of one read.
type seriesReader struct {
	dec   chunk.Decoder
	m     merger
	ex    []blob
	key   []byte
	buf   []byte
	metas []block.ChunkMeta
	ts    []int64
	st    []int64
	blobs [][]byte
	group groupScratch
}

// Read implements model.Series.
func (x *selected) Read(dst *model.Columns) error {
	r := x.sel.readers.Get().(*seriesReader)
	defer x.sel.readers.Put(r)
	if err := x.gather(r); err != nil {
		return err
	}
	c := &r.m.cols
	had := len(dst.T)
	dst.T = append(dst.T, c.T...)
	dst.V = append(dst.V, c.V...)
	if len(c.ST) > 0 {
		for len(dst.ST) < had {
			dst.ST = append(dst.ST, 0)
		}
		dst.ST = append(dst.ST, c.ST...)
	}
	for _, b := range r.m.hist {
		h, err := DecodeHistogram(b.data, b.t, b.st)
		if err != nil {
			return err
		}
		dst.Hist = append(dst.Hist, h)
	}
	return nil
}

// gather merges all that the series' parts say in the selection's range.
func (x *selected) gather(r *seriesReader) error {
	if x.group != nil {
		if err := x.gatherChosen(r); err != nil {
			return err
		}
		r.m.clip(x.sel.minT, x.sel.maxT)
		r.ex = clipBlobs(r.ex, x.sel.minT, x.sel.maxT)
		return nil
	}
	r.m.reset()
	r.ex = r.ex[:0]
	for _, p := range x.blocks {
		if err := r.readBlock(p.b.r, p.ord, x.sel.minT, x.sel.maxT); err != nil {
			return x.sel.s.suspect(p.b, err)
		}
	}
	for _, p := range x.heads {
		st := p.store
		if err := st.read(&r.dec, &r.m); err != nil {
			return err
		}
		if st.more != nil {
			r.ex = append(r.ex, st.more.exemplars...)
		}
	}
	r.m.finish()
	r.m.clip(x.sel.minT, x.sel.maxT)
	r.ex, _ = sortBlobs(r.ex)
	r.ex = clipBlobs(r.ex, x.sel.minT, x.sel.maxT)
	return nil
}

// readBlock appends a block's samples of one series whose chunks touch [minT, maxT],
// as one source.
func (r *seriesReader) readBlock(b *block.Reader, ord uint32, minT, maxT int64) (err error) {
	r.m.begin()
	if r.key, _, r.metas, err = b.Series(ord, r.key[:0], r.metas[:0]); err != nil {
		return err
	}
	for i := range r.metas {
		m := &r.metas[i]
		if m.MaxT < minT || m.MinT > maxT {
			continue
		}
		if r.buf, err = b.Chunk(m, r.buf[:0]); err != nil {
			return err
		}
		if m.Kind == chunk.Floats {
			c := &r.m.cols
			had := len(c.T)
			if c.T, c.V, c.ST, err = r.dec.Floats(r.buf, c.T, c.V, c.ST); err != nil {
				return fmt.Errorf("block %s: %w", b.Meta().ID, err)
			}
			if n := len(c.T) - had; n != m.Count {
				return fmt.Errorf("block %s: a chunk holds %d samples where the index says %d", b.Meta().ID, n, m.Count)
			}
			continue
		}
		if err := r.readBlobs(m.Kind); err != nil {
			return fmt.Errorf("block %s: %w", b.Meta().ID, err)
		}
	}
	return nil
}

func (r *seriesReader) readBlobs(kind chunk.Kind) (err error) {
	clear(r.blobs)
	data := slices.Clone(r.buf) // blobs outlive the buffer
	if r.ts, r.st, r.blobs, err = r.dec.Blobs(data, r.ts[:0], r.st[:0], r.blobs[:0]); err != nil {
		return err
	}
	for i, t := range r.ts {
		b := blob{t: t, data: r.blobs[i]}
		if len(r.st) > 0 {
			b.st = r.st[i]
		}
		if kind == chunk.Exemplars {
			r.ex = append(r.ex, b)
		} else {
			r.m.hist = append(r.m.hist, b)
		}
	}
	return nil
}

// Exemplars returns the matching series that have exemplars in the range.
func (s *Shard) Exemplars(ctx context.Context, req *model.SelectRequest) (_ []model.SeriesExemplars, err error) {
	sel, err := s.Select(ctx, req)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := sel.Close(); err == nil {
			err = cerr
		}
	}()
	var out []model.SeriesExemplars
	var r seriesReader
	for _, x := range sel.Series {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := x.(*selected).gather(&r); err != nil {
			return nil, err
		}
		if len(r.ex) == 0 {
			continue
		}
		se := model.SeriesExemplars{Labels: x.Labels()}
		for _, b := range r.ex {
			e, err := decodeExemplar(b.data, b.t)
			if err != nil {
				return nil, err
			}
			se.Exemplars = append(se.Exemplars, e)
		}
		out = append(out, se)
	}
	return out, nil
}

// LabelNames returns the sorted names of the labels of matching series.
func (s *Shard) LabelNames(ctx context.Context, req *model.SelectRequest) ([]string, error) {
	set := map[string]struct{}{}
	err := s.eachKey(ctx, req, func(key []byte) {
		for len(key) > 0 {
			name, _, rest, ok := model.NextKeyLabel(key)
			if !ok {
				return
			}
			if _, seen := set[string(name)]; !seen {
				set[string(name)] = struct{}{}
			}
			key = rest
		}
	})
	return sortedKeys(set), err
}

// LabelValues returns the sorted values of one label of matching series.
func (s *Shard) LabelValues(ctx context.Context, name string, req *model.SelectRequest) ([]string, error) {
	set := map[string]struct{}{}
	err := s.eachKey(ctx, req, func(key []byte) {
		v := model.KeyValue(key, name)
		if _, seen := set[string(v)]; v != nil && !seen {
			set[strings.Clone(string(v))] = struct{}{}
		}
	})
	return sortedKeys(set), err
}

// eachKey calls fn with the key of every series that Select would return.
func (s *Shard) eachKey(ctx context.Context, req *model.SelectRequest, fn func(key []byte)) error {
	sel, err := s.selectKinds(ctx, req, false)
	if err != nil {
		return err
	}
	for _, x := range sel.Series {
		fn([]byte(x.(*selected).key))
	}
	return sel.Close()
}

func sortedKeys(set map[string]struct{}) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
