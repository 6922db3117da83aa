package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/strandline-db/strandline/shard/model"
)

// ErrBehind: a repair can't go on before this or the other replica has come further.
var ErrBehind = errors.New("the replica has not come far enough")

// ErrDamaged: a damaged block, or a shard with one as a whole, is no source for other replicas.
var ErrDamaged = errors.New("a block is damaged and in quarantine")

// suspect notes that a block is damaged if err says so, once, and tells the owner. The
// block stays as it is: what touches it fails, nothing merges it, nobody gets it.
func (s *Shard) suspect(b *liveBlock, err error) error {
	if !model.IsDamage(err) || !b.bad.CompareAndSwap(nil, &err) {
		return err
	}
	s.opts.Logger.Error("a block is damaged and in quarantine", "shard", s.opts.ID, "block", b.ref.Name, "err", err)
	if s.opts.Damaged != nil {
		s.opts.Damaged(b.ref.Name, err)
	}
	return err
}

// unreadable stands for a block that can't be opened: reads that need it fail.
func (s *Shard) unreadable(ref BlockRef, name string, err error) *liveBlock {
	b := &liveBlock{ref: ref, path: name, remove: s.removeIfThere}
	_ = s.suspect(b, &model.CorruptionError{Path: name, Err: err})
	return b
}

// Scrub reads all blocks and verifies their checksums. pace may wait; see
// block.Reader.VerifySums.
func (s *Shard) Scrub(ctx context.Context, pace func(bytes int) error) error {
	v := s.live.acquire()
	var err error
	for _, b := range v.blocks {
		if b.bad.Load() != nil {
			continue
		}
		if err = s.suspect(b, b.r.VerifySums(ctx, pace)); err != nil && b.bad.Load() == nil {
			break // not damage: the end of ctx, or a disk that does not read
		}
		err = nil
	}
	return errors.Join(err, v.release())
}

// Sound tells whether no block is known to be damaged.
func (s *Shard) Sound() bool { return len(s.quarantined()) == 0 }

// quarantined returns the names of the live blocks that are damaged.
func (s *Shard) quarantined() map[string]bool {
	s.live.mu.Lock()
	defer s.live.mu.Unlock()
	var bad map[string]bool
	for _, b := range s.live.mu.current.blocks {
		if b.bad.Load() != nil {
			if bad == nil {
				bad = map[string]bool{}
			}
			bad[b.ref.Name] = true
		}
	}
	return bad
}

// Repair replaces a damaged block by what another replica's offer has of its time: all
// blocks that touch it. They hold every entry up to the offer's index, so whatever the
// damaged one held; what the shard has besides is there twice, the same, until merges
// join it. Both replicas must have come to the other's index: ErrBehind otherwise.
func (s *Shard) Repair(ctx context.Context, name string, data []byte, fetch Fetch) error {
	if err := s.maintain.take(ctx); err != nil {
		return err
	}
	defer s.maintain.give()
	if s.failed != nil {
		return s.failed
	}
	var broken *BlockRef
	for i := range s.manifest.Blocks {
		if s.manifest.Blocks[i].Name == name {
			broken = &s.manifest.Blocks[i]
		}
	}
	if broken == nil {
		return nil // merged before it was damaged, or beyond the retention now
	}
	from, _, _, err := decodeOffer(data)
	switch {
	case err != nil:
		return err
	case from.Shard != s.opts.ID:
		return fmt.Errorf("%w: shard %d was offered to shard %d", ErrManifest, from.Shard, s.opts.ID)
	case from.Applied < broken.ToIndex || s.Applied() < from.Applied:
		return fmt.Errorf("%w: entry %d was offered, the block reaches %d, this replica %d", ErrBehind, from.Applied, broken.ToIndex, s.Applied())
	}
	want, removed, err := s.exchange(broken, from)
	if err != nil {
		return err
	}
	added, err := s.fetchBlocks(ctx, want, fetch)
	if err != nil {
		return err
	}
	s.fail("repair-before-manifest")
	next := *s.manifest
	var wake []Sink
	if err := s.commit(&next, added, removed, func() { s.head.resetWatchesLocked(); wake = s.head.showLocked() }); err != nil {
		s.failed = fmt.Errorf("shard %d: repair: %w", s.opts.ID, err)
		return s.failed
	}
	wakeAll(wake)
	s.opts.Logger.Warn("repaired a damaged block from another replica", "shard", s.opts.ID, "block", name, "blocks", len(added))
	return s.dropFetched()
}

// exchange says which of another replica's blocks replace which of these, so that the
// damaged one goes.
//
// Where choices have been made, what one replica still has another may have dropped, and
// to add the two up would bring it back. So both must have come to the same choice, and of
// the time that is repaired, which is made as long as all blocks that touch it, everything
// up to the offer's index is replaced.
func (s *Shard) exchange(broken *BlockRef, from *Manifest) (want []BlockRef, removed map[string]bool, err error) {
	minT, maxT := broken.MinT, broken.MaxT
	inside := func(b *BlockRef) bool { return b.MaxT >= minT && b.MinT <= maxT }
	removed = map[string]bool{broken.Name: true}
	choices := len(s.manifest.Choices)+len(from.Choices) > 0
	if choices && lastChoice(s.manifest) != lastChoice(from) {
		return nil, nil, fmt.Errorf("%w: the last choice among senders is entry %d here and %d there", ErrBehind, lastChoice(s.manifest).Index, lastChoice(from).Index)
	}
	for grown := choices; grown; {
		grown = false
		for _, list := range [][]BlockRef{s.manifest.Blocks, from.Blocks} {
			for i := range list {
				if b := &list[i]; inside(b) && (b.MinT < minT || b.MaxT > maxT) {
					minT, maxT, grown = min(minT, b.MinT), max(maxT, b.MaxT), true
				}
			}
		}
	}
	for i := range s.manifest.Blocks {
		if b := &s.manifest.Blocks[i]; choices && inside(b) && b.ToIndex <= from.Applied {
			removed[b.Name] = true
		}
	}
	for i := range from.Blocks {
		if b := &from.Blocks[i]; inside(b) {
			want = append(want, *b)
		}
	}
	return want, removed, nil
}

// damagedSuffix marks the files of a shard whose manifest or table was damaged. They
// stay until an install has made them superfluous.
const damagedSuffix = ".damaged"

// rank puts the manifest behind the files that it names.
func rank(name string) int {
	if name == manifestName {
		return 1
	}
	return 0
}

// Quarantine puts the files of a shard that can't be opened aside, so that it opens
// empty. What it held must then come from another replica.
func Quarantine(o Options) error {
	o.EnsureDefaults()
	for _, dir := range []string{o.ColdDir, o.WarmDir, o.Dir} { // the manifest's folder last
		names, err := o.FS.List(dir)
		if err != nil {
			return err
		}
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
		for _, name := range names {
			if name != manifestName && !strings.HasSuffix(name, blockSuffix) && !strings.HasSuffix(name, ".tbl") {
				continue
			}
			if err := o.FS.Rename(path.Join(dir, name), path.Join(dir, name+damagedSuffix)); err != nil {
				return err
			}
		}
		if err := o.FS.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}
