package shard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/shard/block"
	"github.com/strandline-db/strandline/shard/model"
)

const (
	// fetchPiece is how many bytes of a block are fetched at a time, fetchAhead how many
	// pieces of one block are on their way. Of fetchBlocksAhead blocks one is written to
	// the disk and verified while the next comes.
	fetchPiece       = 512 << 10
	fetchAhead       = 8
	fetchBlocksAhead = 2
	// fetchedSuffix marks a block of another replica that is whole, verified and not yet
	// in use. It is kept when an install breaks off, and over a restart.
	fetchedSuffix = ".fetched"
)

// Fetch reads n bytes at off of a block's file at another replica and hands them to use,
// which must not keep them; its error is returned. It is called from several goroutines.
type Fetch func(ctx context.Context, name string, off int64, n int, use func([]byte) error) error

// fetchBlocks copies blocks here and makes them durable under names of ours. Those
// that an earlier attempt has fetched are not fetched again.
func (s *Shard) fetchBlocks(ctx context.Context, refs []BlockRef, fetch Fetch) ([]BlockRef, error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchBlocksAhead)
	for _, ref := range refs {
		g.Go(func() error { return s.fetchBlock(gctx, ref, fetch) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var added []BlockRef
	for _, ref := range refs {
		have := s.fetchedName(ref)
		ref.Name = fmt.Sprintf("%016x%s", s.manifest.NextBlock, blockSuffix)
		s.manifest.NextBlock++
		if err := s.opts.FS.Rename(have, path.Join(s.tierDir(ref.Tier), ref.Name)); err != nil {
			return nil, err
		}
		added = append(added, ref)
	}
	for _, t := range []Tier{Hot, Warm, Cold} {
		if err := s.opts.FS.SyncDir(s.tierDir(t)); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// fetchedName follows from what the other replica's manifest says of a block: blocks
// of which it says the same hold the same.
func (s *Shard) fetchedName(ref BlockRef) string {
	b, err := json.Marshal(&ref)
	if err != nil {
		panic(err) // numbers and a string
	}
	sum := sha256.Sum256(b)
	return path.Join(s.tierDir(ref.Tier), hex.EncodeToString(sum[:8])+fetchedSuffix)
}

// fetchBlock copies one block here and verifies its checksums.
func (s *Shard) fetchBlock(ctx context.Context, ref BlockRef, fetch Fetch) error {
	file := s.fetchedName(ref)
	err := checkSums(ctx, s.opts, file, ref)
	var damage *model.CorruptionError
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &damage) {
		return err
	}
	if err := s.copyBlock(ctx, ref, file+tmpSuffix, fetch); err != nil {
		return errors.Join(err, s.removeIfThere(file+tmpSuffix))
	}
	if err := checkSums(ctx, s.opts, file+tmpSuffix, ref); err != nil {
		return errors.Join(fmt.Errorf("block %s as fetched: %w", ref.Name, err), s.removeIfThere(file+tmpSuffix))
	}
	return s.opts.FS.Rename(file+tmpSuffix, file)
}

// copyBlock fetches a block's file, several pieces at a time.
func (s *Shard) copyBlock(ctx context.Context, ref BlockRef, file string, fetch Fetch) (err error) {
	f, err := s.opts.FS.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchAhead)
	for off := int64(0); off < ref.Bytes && ctx.Err() == nil; off += fetchPiece {
		g.Go(func() error {
			n := int(min(fetchPiece, ref.Bytes-off))
			return fetch(ctx, ref.Name, off, n, func(b []byte) error {
				if len(b) != n {
					return &model.CorruptionError{Path: ref.Name, Offset: off, Err: errors.New("the block ends early")}
				}
				_, err := f.WriteAt(b, off)
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return f.Sync()
}

// checkSums verifies that a file is the block that ref describes, and all its
// checksums. It decodes no samples: the replica that wrote them has.
func checkSums(ctx context.Context, o Options, name string, ref BlockRef) (err error) {
	r, err := block.Open(o.FS, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := describes(o, &ref, r.Meta()); err != nil {
		return &model.CorruptionError{Path: name, Err: err}
	}
	return r.VerifySums(ctx, nil)
}

func (s *Shard) removeIfThere(name string) error {
	if err := s.opts.FS.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// dropFetched removes what attempts that came to nothing, or damage, have left.
func (s *Shard) dropFetched() error {
	for _, dir := range []string{s.opts.Dir, s.opts.WarmDir, s.opts.ColdDir} {
		names, err := s.opts.FS.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !strings.HasSuffix(name, fetchedSuffix) && !strings.HasSuffix(name, damagedSuffix) {
				continue
			}
			if err := s.opts.FS.Remove(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}
