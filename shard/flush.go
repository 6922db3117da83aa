package shard

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"time"

	"github.com/strandline-db/strandline/shard/block"
	"github.com/strandline-db/strandline/shard/chunk"
)

// frozenSeries is one series on its way from the head into blocks.
type frozenSeries struct {
	key string
	no  uint32
	s   *store
	to  uint64 // the last entry that it may hold
}

// Cut is the state of the head at one log index, taken by Freeze.
type Cut struct {
	applied    uint64 // the last entry that changed the head
	horizon    int64  // samples before it are gone
	choices    []Choice
	epoch      uint64 // of the head
	nextNo     uint32
	table      []tableEntry // live series, by number
	series     []frozenSeries
	samples    int64
	bytes      int64 // of headMem
	minT, maxT int64
}

// freeze closes the active generation at the last applied index and starts a new one.
func (h *head) freeze() *Cut {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &Cut{applied: h.mu.applied, epoch: h.mu.epoch, horizon: h.mu.cut, choices: h.mu.choices, nextNo: h.mu.nextNo,
		samples: h.mu.samples, bytes: h.mem.bytes, minT: h.mu.minT, maxT: h.mu.maxT}
	c.table = make([]tableEntry, 0, h.mu.byNo.live)
	for s := range h.mu.byNo.all {
		c.table = append(c.table, tableEntry{no: s.no, key: s.key})
	}
	for no, s := range h.mu.held {
		if s.active.any() {
			s.endGeneration(c.applied)
		} else if s.older == nil {
			s.idle = min(s.idle, math.MaxUint8-1) + 1
		}
		for g := s.older; g != nil; g = g.next {
			c.series = append(c.series, frozenSeries{key: s.key, no: no, s: &g.store, to: g.to})
		}
	}
	h.mu.samples, h.mem.bytes = 0, 0
	h.mu.minT, h.mu.maxT = math.MaxInt64, math.MinInt64
	return c
}

// unfreeze gives up a cut that was not written. Its generations become active again, but
// for those that a choice keeps apart from what came later: they stay, for the next cut.
func (h *head) unfreeze(c *Cut) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.epoch != h.mu.epoch {
		return
	}
	for _, f := range c.series {
		if f.to == c.applied && !touched(h.mu.choices[stage(h.mu.choices, f.to, 0):], f.s.minT) {
			h.reviveLocked(h.mu.held[f.no], f.s)
		}
	}
	h.mu.samples += c.samples
	h.mem.bytes += c.bytes
	h.mu.minT, h.mu.maxT = min(h.mu.minT, c.minT), max(h.mu.maxT, c.maxT)
}

// reviveLocked makes a series' last generation, old, active again: what has come since is
// stored behind it, in the order that its kinds have.
func (h *head) reviveLocked(s *series, old *store) {
	at := &s.older
	for *at != nil && &(*at).store != old {
		at = &(*at).next
	}
	if *at == nil || (*at).next != nil {
		return
	}
	newer := s.active
	s.active, *at = *old, nil
	var m merger
	if err := newer.read(&h.mem.dec, &m); err != nil {
		panic(fmt.Sprintf("shard: a chunk of the head does not decode: %v", err)) // memory is damaged
	}
	for i, t := range m.cols.T {
		st := int64(0)
		if i < len(m.cols.ST) {
			st = m.cols.ST[i]
		}
		s.active.dropHist(t)
		s.active.addLate(sample{t: t, v: m.cols.V[i], st: st})
	}
	if newer.tail != nil {
		h.mem.tails.put(newer.tail)
	}
	if newer.more != nil {
		s.active.putBack(newer.more)
	}
}

// putBack appends newer histograms and exemplars.
func (a *store) putBack(newer *blobs) {
	for _, b := range slices.Concat(newer.hist, newer.exemplars) {
		a.widen(b.t)
	}
	if a.more == nil {
		a.more = newer
		return
	}
	a.more.hist = slices.Concat(a.more.hist, newer.hist)
	a.more.exemplars = slices.Concat(a.more.exemplars, newer.exemplars)
	a.more.histMaxT = max(a.more.histMaxT, newer.histMaxT)
	a.more.histPlaces.forget()
	a.more.otherPlaces.forget()
}

// thawLocked drops the frozen generations after their blocks are live.
func (h *head) thawLocked(c *Cut) {
	numbers := make([]uint32, 0, len(c.series))
	for _, f := range c.series {
		s := h.mu.held[f.no]
		for s.older != nil && s.older.to <= c.applied {
			if t := s.older.tail; t != nil {
				h.mem.tails.put(t)
			}
			s.older = s.older.next
		}
		numbers = append(numbers, f.no)
	}
	h.purgeLocked(numbers)
}

// Busy tells whether a flush would have to wait for other changes of the shard's blocks.
func (s *Shard) Busy() bool { return len(s.maintain) > 0 }

// Hasten ends upkeep that is under way with the merge at hand, since a flush is due.
func (s *Shard) Hasten() { s.awaited.Store(true) }

// Await hastens upkeep and returns when a flush need not wait.
func (s *Shard) Await(ctx context.Context) error {
	s.Hasten()
	if err := s.maintain.take(ctx); err != nil {
		return err
	}
	s.maintain.give()
	return nil
}

// Flush writes the head's samples into hot blocks, records them and the log index
// they reach in the manifest, and returns that index: log entries up to it are no
// longer needed. ctx is for the wait until other changes of the shard's blocks are done; what
// has begun goes on to its end. A failure is final: the shard must be reopened.
func (s *Shard) Flush(ctx context.Context) (uint64, error) {
	if err := s.maintain.take(ctx); err != nil {
		return 0, err
	}
	defer s.maintain.give()
	if s.failed != nil {
		return 0, s.failed
	}
	c := s.head.freeze()
	return c.applied, s.persistLocked(context.WithoutCancel(ctx), c, Mark{Applied: c.applied, Term: 1})
}

// Mark is the place in the log that a flush reaches, and what Raft knows there.
type Mark struct {
	Applied, Term      uint64
	Configuration      []byte // encoded by its owner; nil on a single node
	ConfigurationIndex uint64
}

// Freeze closes the generation of the head that is active at the last applied entry.
// It only takes the head's lock. Persist or Unfreeze must follow before the next.
func (s *Shard) Freeze() *Cut { return s.head.freeze() }

// Unfreeze puts back what Freeze took.
func (s *Shard) Unfreeze(c *Cut) { s.head.unfreeze(c) }

// ErrSuperseded: the shard was installed anew between Freeze and Persist.
var ErrSuperseded = errors.New("the cut belongs to a state that was replaced")

// Persist writes a frozen generation into hot blocks and records them in the manifest
// together with m, whose index is that of Freeze or one behind it that changed
// nothing. A failure is final, as that of Flush, but for the end of ctx, which counts only
// while the cut waits for other changes of the shard's blocks: it is still to be persisted
// then, or put back.
func (s *Shard) Persist(ctx context.Context, c *Cut, m Mark) error {
	if err := s.maintain.take(ctx); err != nil {
		return err
	}
	defer s.maintain.give()
	if s.failed != nil {
		return s.failed
	}
	return s.persistLocked(context.WithoutCancel(ctx), c, m)
}

func (s *Shard) persistLocked(ctx context.Context, c *Cut, m Mark) error {
	if !s.head.current(c) {
		return ErrSuperseded
	}
	if len(c.series) == 0 && m.Applied == s.manifest.Applied && bytes.Equal(m.Configuration, s.manifest.Configuration) {
		return nil
	}
	if err := s.flushCut(ctx, c, m); err != nil {
		s.failed = fmt.Errorf("shard %d: flush: %w", s.opts.ID, err)
		return s.failed
	}
	return nil
}

func (s *Shard) flushCut(ctx context.Context, c *Cut, m Mark) error {
	slices.SortFunc(c.series, func(a, b frozenSeries) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.no, b.no), cmp.Compare(a.to, b.to))
	})
	s.fail("flush-start")
	added, err := s.writeFrozen(ctx, c)
	if err != nil {
		return err
	}
	table, err := writeTable(s.opts.FS, s.opts.Dir, fmt.Sprintf("series-%016x.tbl", m.Applied), c.table)
	if err != nil {
		return err
	}
	s.fail("flush-before-manifest")
	next := *s.manifest
	next.NextNo, next.Table, next.Cut, next.Choices = c.nextNo, table, c.horizon, c.choices
	next.Applied, next.Term, next.Configuration, next.ConfigurationIndex = m.Applied, m.Term, m.Configuration, m.ConfigurationIndex
	next.Installed = false
	err = s.commit(&next, added, nil, func() { s.head.thawLocked(c) })
	s.fail("flush-after-manifest")
	return err
}

// source yields what one series has inside a block window.
type source interface {
	// next moves to the next key; false at the end.
	next() (key string, no uint32, ok bool)
	// read appends the current series' samples to m, and its exemplars to ex.
	read(m *merger, ex []blob) ([]blob, error)
}

// frozenSource walks a cut. Series of one key (a number dropped and given anew)
// follow each other and are read together.
type frozenSource struct {
	series []frozenSeries
	at, to int
	dec    chunk.Decoder
}

func (f *frozenSource) next() (string, uint32, bool) {
	f.at = f.to
	if f.at >= len(f.series) {
		return "", 0, false
	}
	for f.to = f.at + 1; f.to < len(f.series) && f.series[f.to].key == f.series[f.at].key; f.to++ {
	}
	return f.series[f.at].key, f.series[f.to-1].no, true
}

func (f *frozenSource) read(m *merger, ex []blob) ([]blob, error) {
	for _, x := range f.series[f.at:f.to] {
		if err := x.s.read(&f.dec, m); err != nil {
			return ex, err
		}
		if x.s.more != nil {
			ex = append(ex, x.s.more.exemplars...)
		}
	}
	return ex, nil
}

// windowsAtOnce bounds the files that a flush of old data has open together.
const windowsAtOnce = 32

// writeFrozen writes the cut's series into one block for each time window they
// touch. Late data may touch many windows; they are written in groups. What came before a
// choice and what came behind it go into blocks of their own.
func (s *Shard) writeFrozen(ctx context.Context, c *Cut) ([]BlockRef, error) {
	parts := make([][]frozenSeries, len(c.choices)+1)
	for _, f := range c.series {
		k := stage(c.choices, f.to, 0)
		parts[k] = append(parts[k], f)
	}
	from := s.manifest.Applied + 1
	var out []BlockRef
	for k, part := range parts {
		if len(part) == 0 {
			continue
		}
		to := c.applied
		if k < len(c.choices) {
			to = c.choices[k].Index
		}
		refs, err := s.writeFrozenPart(ctx, part, blockPlan{tier: Hot, window: s.opts.HotWindow, horizon: c.horizon, from: min(from, to), to: to})
		if err != nil {
			return nil, err
		}
		out, from = append(out, refs...), to+1
	}
	return out, nil
}

func (s *Shard) writeFrozenPart(ctx context.Context, series []frozenSeries, plan blockPlan) ([]BlockRef, error) {
	touched := map[int64]bool{}
	for _, f := range series {
		if err := s.touch(touched, f.s); err != nil {
			return nil, err
		}
	}
	starts := make([]int64, 0, len(touched))
	for w := range touched {
		starts = append(starts, w)
	}
	slices.Sort(starts)
	var out []BlockRef
	for group := range slices.Chunk(starts, windowsAtOnce) {
		plan.starts = group
		refs, _, err := s.writeBlocks(ctx, &frozenSource{series: series}, plan)
		if err != nil {
			return nil, err
		}
		out = append(out, refs...)
	}
	return out, nil
}

// touch marks the windows in which a store has samples. A span of in-order samples
// inside one window, the usual case, is not decoded.
func (s *Shard) touch(windows map[int64]bool, st *store) error {
	w := s.opts.HotWindow.Milliseconds()
	if first := floorTo(st.minT, w); first == floorTo(st.maxT, w) {
		windows[first] = true
		return nil
	}
	var m merger
	if err := st.read(&s.dec, &m); err != nil {
		return err
	}
	for _, t := range m.cols.T {
		windows[floorTo(t, w)] = true
	}
	for _, b := range m.hist {
		windows[floorTo(b.t, w)] = true
	}
	if st.more != nil {
		for _, b := range st.more.exemplars {
			windows[floorTo(b.t, w)] = true
		}
	}
	return nil
}

// floorTo returns the start of the window of width w that holds t.
func floorTo(t, w int64) int64 {
	f := t - t%w
	if t%w < 0 {
		f -= w
	}
	return f
}

// blockPlan says what writeBlocks makes of a source.
type blockPlan struct {
	tier     Tier
	window   time.Duration
	starts   []int64 // window starts, sorted: what lies outside them is left out
	horizon  int64   // samples before it are left out
	from, to uint64  // log indexes covered
	chosen   Choice  // the last that is done
}

// writeBlocks writes a source into a block for each window and syncs the folder.
// The blocks are not live until a manifest names them. Of lost, Overwritten counts the
// values that a newer one of the same timestamp replaced, and Unchosen what choices among
// senders dropped.
func (s *Shard) writeBlocks(ctx context.Context, src source, p blockPlan) (_ []BlockRef, lost Counts, _ error) {
	ws := make([]*blockWriter, len(p.starts))
	defer func() {
		for _, w := range ws {
			if w != nil {
				_ = w.w.Abort() // no-op after Finish; before it, the error that matters is being returned
			}
		}
	}()
	var m merger
	var ex []blob
	for n := 0; ; n++ {
		key, no, ok := src.next()
		if !ok {
			break
		}
		if n%256 == 0 && ctx.Err() != nil {
			return nil, lost, context.Cause(ctx)
		}
		m.reset()
		var err error
		if ex, err = src.read(&m, ex[:0]); err != nil {
			return nil, lost, err
		}
		m.finish()
		lost.Overwritten += m.overwritten
		lost.Unchosen += m.unchosen
		ex, _ = sortBlobs(ex)
		if err := s.writeSeries(ws, key, no, &m, ex, p); err != nil {
			return nil, lost, err
		}
	}
	refs, err := s.finishBlocks(ws, p)
	return refs, lost, err
}

func (s *Shard) finishBlocks(ws []*blockWriter, p blockPlan) ([]BlockRef, error) {
	var out []BlockRef
	dir := s.tierDir(p.tier)
	for _, w := range ws {
		if w == nil {
			continue
		}
		s.fail("block-before-finish")
		meta, err := w.w.Finish()
		if err != nil {
			return nil, err
		}
		if err := s.opts.FS.Rename(path.Join(dir, w.name+tmpSuffix), path.Join(dir, w.name)); err != nil {
			return nil, err
		}
		out = append(out, BlockRef{
			Name: w.name, Tier: p.tier, MinT: meta.MinT, MaxT: meta.MaxT, Samples: meta.Samples, Bytes: meta.Bytes,
			FromIndex: p.from, ToIndex: p.to, Chosen: p.chosen.Index, ChosenT: p.chosen.T,
		})
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, s.opts.FS.SyncDir(dir)
}

type blockWriter struct {
	w    *block.Writer
	name string
}

// samplesPerChunk is how many samples a chunk holds in each tier: long chunks pack
// better, short ones are cheaper to read a little of.
var samplesPerChunk = [...]int{Hot: 240, Warm: 480, Cold: 960}

// writeSeries cuts one series at the window bounds and writes its chunks.
func (s *Shard) writeSeries(ws []*blockWriter, key string, no uint32, m *merger, ex []blob, p blockPlan) error {
	width := p.window.Milliseconds()
	for i, start := range p.starts {
		lo, hi := max(start, p.horizon), start+width-1
		part := *m
		part.clip(lo, hi)
		exPart := clipBlobs(ex, lo, hi)
		if len(part.cols.T)+len(part.hist)+len(exPart) == 0 {
			continue
		}
		w := ws[i]
		if w == nil {
			var err error
			if w, err = s.newBlock(p); err != nil {
				return err
			}
			ws[i] = w
		}
		if err := w.w.StartSeries([]byte(key), uint64(no)); err != nil {
			return err
		}
		if err := s.writeChunks(w.w, &part, exPart, samplesPerChunk[p.tier]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Shard) writeChunks(w *block.Writer, m *merger, ex []blob, size int) error {
	c := &m.cols
	for i := 0; i < len(c.T); i += size {
		j := min(i+size, len(c.T))
		var st []int64
		if len(c.ST) > 0 {
			st = c.ST[i:j]
		}
		s.buf = s.enc.Floats(s.buf[:0], c.T[i:j], c.V[i:j], st)
		stats := chunk.StatsOf(c.V[i:j])
		if err := w.AddChunk(chunk.Floats, c.T[i], c.T[j-1], j-i, &stats, s.buf); err != nil {
			return err
		}
	}
	if err := s.writeBlobs(w, chunk.Blobs, m.hist, size/2); err != nil {
		return err
	}
	return s.writeBlobs(w, chunk.Exemplars, ex, size)
}

func (s *Shard) writeBlobs(w *block.Writer, kind chunk.Kind, bs []blob, size int) error {
	for part := range slices.Chunk(bs, size) {
		ts, st, data := make([]int64, len(part)), make([]int64, len(part)), make([][]byte, len(part))
		hasST := false
		for i, b := range part {
			ts[i], st[i], data[i] = b.t, b.st, b.data
			hasST = hasST || b.st != 0
		}
		if !hasST {
			st = nil
		}
		s.buf = s.enc.Blobs(s.buf[:0], ts, st, data)
		if err := w.AddChunk(kind, ts[0], ts[len(ts)-1], len(part), nil, bytes.Clone(s.buf)); err != nil {
			return err
		}
	}
	return nil
}
