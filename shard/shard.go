package shard

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/strandline-db/strandline/shard/block"
	"github.com/strandline-db/strandline/shard/chunk"
	"github.com/strandline-db/strandline/shard/model"
)

// Shard is one hash partition of the series.
type Shard struct {
	opts   Options
	head   *head
	live   views
	offers offers

	// maintain is held by whoever changes blocks: a flush, a merge, a move, a cut.
	// What follows is guarded by it.
	maintain turn
	awaited  atomic.Bool // a flush is due: see Hasten
	manifest *Manifest
	failed   error                    // set after a failed change of files; final
	durable  atomic.Pointer[Manifest] // as last written, for whoever does not hold maintain
	enc      chunk.Encoder
	dec      chunk.Decoder
	buf      []byte
}

// Open opens the shard in o.Dir, or makes an empty one there, and removes files
// that no manifest names. The head holds nothing yet but the series table: the
// caller replays the log above Applied.
func Open(o Options) (_ *Shard, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Shard{opts: o, head: newHead(), maintain: newTurn()}
	for _, dir := range []string{o.Dir, o.WarmDir, o.ColdDir} {
		if err := o.FS.MkdirAll(dir); err != nil {
			return nil, err
		}
		if err := o.FS.SyncDir(path.Dir(dir)); err != nil {
			return nil, err
		}
	}
	// The manifest that is seen must last before anything goes by it: what was killed between
	// its renaming and the sync of the folder has left that open.
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return nil, err
	}
	s.manifest, err = ReadManifest(o.FS, o.Dir)
	if notExist(err) {
		s.manifest, err = s.begin()
	}
	if err != nil {
		return nil, err
	}
	s.publish()
	if s.manifest.Shard != o.ID {
		return nil, fmt.Errorf("%w: %s belongs to shard %d, not %d", ErrManifest, o.Dir, s.manifest.Shard, o.ID)
	}
	if err := s.loadHead(); err != nil {
		return nil, err
	}
	if err := s.openBlocks(); err != nil {
		return nil, err
	}
	if err := s.removeStrays(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// begin makes the manifest of a new shard, which is there before any block is. So blocks
// without one are those of a manifest that is lost, and not to be taken for strays.
func (s *Shard) begin() (*Manifest, error) {
	for _, dir := range []string{s.opts.Dir, s.opts.WarmDir, s.opts.ColdDir} {
		names, err := s.opts.FS.List(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if strings.HasSuffix(name, blockSuffix) {
				return nil, &model.CorruptionError{Path: path.Join(s.opts.Dir, manifestName),
					Err: fmt.Errorf("%w: it is missing, and there is a block, %s: restore the whole folder from one copy, or move the block away", ErrManifest, path.Join(dir, name))}
			}
		}
	}
	m := &Manifest{Shard: s.opts.ID, Term: 1, Cut: math.MinInt64, NextNo: 1}
	return m, writeManifest(s.opts.FS, s.opts.Dir, m)
}

func (s *Shard) loadHead() error {
	var table []tableEntry
	if err := readTable(s.opts.FS, s.opts.Dir, s.manifest.Table, func(no uint32, key string) {
		table = append(table, tableEntry{no, key})
	}); err != nil {
		return err
	}
	s.head.mu.Lock()
	defer s.head.mu.Unlock()
	s.head.setLocked(s.manifest, table)
	s.head.showLocked()
	return nil
}

func (s *Shard) openBlocks() (err error) {
	var open []*liveBlock
	defer func() {
		if err != nil {
			for _, b := range open {
				if b.r != nil {
					err = errors.Join(err, b.r.Close())
				}
			}
		}
	}()
	for _, ref := range s.manifest.Blocks {
		b, err := s.openBlock(ref)
		if s.opts.Damaged != nil && (model.IsDamage(err) || notExist(err)) {
			b, err = s.unreadable(ref, path.Join(s.tierDir(ref.Tier), ref.Name), err), nil
		}
		if err != nil {
			return err
		}
		open = append(open, b)
	}
	s.live.mu.current = newView(open)
	return nil
}

func (s *Shard) openBlock(ref BlockRef) (*liveBlock, error) {
	name := path.Join(s.tierDir(ref.Tier), ref.Name)
	r, err := block.Open(s.opts.FS, name)
	if err != nil {
		return nil, fmt.Errorf("%w (the manifest names it; `strandline check data` tells more)", err)
	}
	return &liveBlock{ref: ref, path: name, r: r, remove: s.opts.FS.Remove}, nil
}

func (s *Shard) tierDir(t Tier) string {
	switch t {
	case Warm:
		return s.opts.WarmDir
	case Cold:
		return s.opts.ColdDir
	}
	return s.opts.Dir
}

// removeStrays deletes our files that the manifest does not name: what a crash
// left between writing and committing, or between committing and removing.
func (s *Shard) removeStrays() error {
	named := map[string]bool{}
	for _, b := range s.manifest.Blocks {
		named[path.Join(s.tierDir(b.Tier), b.Name)] = true
	}
	if s.manifest.Table != nil {
		named[path.Join(s.opts.Dir, s.manifest.Table.Name)] = true
	}
	for _, dir := range []string{s.opts.Dir, s.opts.WarmDir, s.opts.ColdDir} {
		names, err := s.opts.FS.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			full := path.Join(dir, name)
			ours := strings.HasSuffix(name, blockSuffix) || strings.HasSuffix(name, ".tbl") || strings.HasSuffix(name, tmpSuffix)
			if !ours || named[full] {
				continue
			}
			s.opts.Logger.Info("removing a file that no manifest names", "path", full)
			if err := s.opts.FS.Remove(full); err != nil {
				return err
			}
		}
	}
	return nil
}

const blockSuffix = ".blk"

// newBlock starts a block file under a temporary name.
func (s *Shard) newBlock(p blockPlan) (*blockWriter, error) {
	name := fmt.Sprintf("%016x%s", s.manifest.NextBlock, blockSuffix)
	s.manifest.NextBlock++
	level := 0
	switch p.tier {
	case Warm:
		level = 1
	case Cold:
		level = 3
	}
	w, err := block.NewWriter(s.opts.FS, path.Join(s.tierDir(p.tier), name+tmpSuffix), block.WriterOptions{
		Meta: block.Meta{
			ID: strings.TrimSuffix(name, blockSuffix), Shard: s.opts.ID, Tier: uint8(p.tier), Level: int(p.tier),
			FromIndex: p.from, ToIndex: p.to,
		},
		Compression: level,
	})
	if err != nil {
		return nil, err
	}
	return &blockWriter{w: w, name: name}, nil
}

// commit makes next, with blocks added and removed, the shard's durable state and
// then its visible one. under runs together with the switch of the view, so that
// no reader sees samples twice or not at all.
func (s *Shard) commit(next *Manifest, added []BlockRef, removed map[string]bool, under func()) error {
	keep := func(b BlockRef) bool { return !removed[b.Name] }
	next.Blocks = nil
	for _, b := range s.manifest.Blocks {
		if keep(b) {
			next.Blocks = append(next.Blocks, b)
		}
	}
	next.Blocks = append(next.Blocks, added...)
	next.NextBlock = s.manifest.NextBlock
	next.Choices = next.choicesLeft()
	slices.SortStableFunc(next.Blocks, func(a, b BlockRef) int {
		switch {
		case a.ToIndex < b.ToIndex:
			return -1
		case a.ToIndex > b.ToIndex:
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	// Opened before the commit: a block that can't be read back must not replace the log.
	opened := map[string]*liveBlock{}
	for _, ref := range added {
		b, err := s.openBlock(ref)
		if err != nil {
			return err
		}
		opened[ref.Name] = b
	}
	if err := writeManifest(s.opts.FS, s.opts.Dir, next); err != nil {
		return err
	}
	s.fail("manifest-written")
	oldTable := s.manifest.Table
	s.manifest = next
	s.publish()
	if err := s.show(opened, removed, under); err != nil {
		return err
	}
	if oldTable != nil && (next.Table == nil || oldTable.Name != next.Table.Name) {
		return s.opts.FS.Remove(path.Join(s.opts.Dir, oldTable.Name))
	}
	return nil
}

// show swaps the view to what the manifest says.
func (s *Shard) show(opened map[string]*liveBlock, removed map[string]bool, under func()) error {
	now := s.live.acquire()
	byName := opened
	for _, b := range now.blocks {
		if removed[b.ref.Name] {
			b.dead.Store(true)
		} else {
			byName[b.ref.Name] = b
		}
	}
	var blocks []*liveBlock
	for _, ref := range s.manifest.Blocks {
		blocks = append(blocks, byName[ref.Name])
	}
	next := newView(blocks)
	s.head.mu.Lock()
	if under != nil {
		under()
	}
	old := s.live.swap(next)
	s.head.mu.Unlock()
	return errors.Join(now.release(), old.release())
}

func (s *Shard) fail(name string) {
	if s.opts.Failpoint != nil {
		s.opts.Failpoint(name)
	}
}

// Apply applies one log entry. Entries come in order of index, each once.
func (s *Shard) Apply(index uint64, payload []byte) ([]Result, error) {
	return s.head.apply(index, payload)
}

// Applied returns the index of the last applied entry.
func (s *Shard) Applied() uint64 {
	return s.head.shown.Load()
}

// Stats describe a shard at one moment.
type Stats struct {
	Counts
	Series      int   // known to the head
	HeadSamples int64 // not yet flushed
	HeadBytes   int64 // taken by them, roughly
	HeadMinT    int64 // oldest of them, in milliseconds; math.MaxInt64 if there is none
	Cut         int64
	Blocks      [3]int   // by tier
	BlockBytes  [3]int64 // by tier
	Applied     uint64
}

// Stats returns the shard's figures.
func (s *Shard) Stats() Stats {
	h := s.head
	h.mu.RLock()
	st := Stats{Counts: h.mu.counts, Series: h.mu.byNo.live, HeadSamples: h.mu.samples, HeadMinT: h.mu.minT, Cut: h.mu.cut,
		HeadBytes: h.mem.bytes, Applied: h.mu.applied}
	h.mu.RUnlock()
	v := s.live.acquire()
	for _, b := range v.blocks {
		st.Blocks[b.ref.Tier]++
		st.BlockBytes[b.ref.Tier] += b.ref.Bytes
	}
	if err := v.release(); err != nil {
		s.opts.Logger.Error("closing a block", "err", err)
	}
	return st
}

// Close closes the shard's files. The caller has flushed it, or the log has what
// it holds.
func (s *Shard) Close() error {
	if err := s.maintain.take(context.Background()); err != nil {
		return err
	}
	defer s.maintain.give()
	old := s.live.swap(newView(nil))
	if old == nil {
		return nil
	}
	return old.release()
}

// Blocks lists the live blocks.
func (s *Shard) Blocks() []BlockRef {
	return slices.Clone(s.durable.Load().Blocks)
}

// Manifest returns the shard's durable state; what it points to must not be changed.
func (s *Shard) Manifest() Manifest {
	return *s.durable.Load()
}

// publish makes the manifest visible to those who do not hold maintain.
func (s *Shard) publish() {
	m := *s.manifest
	s.durable.Store(&m)
}
