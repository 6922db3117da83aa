package shard

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// CopiedFile is a file of a copy, named from the copy's folder, with its CRC32C.
type CopiedFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // in bytes
	CRC  uint32 `json:"crc"`
	// Linked says that the file is a second name of the shard's own, and takes no room.
	Linked bool `json:"-"`
}

// CopyTo makes dir, which must be empty, a closed shard that holds what is offered, with
// all tiers below it, and durable. Blocks are linked where the file system can. The copy
// is that of a single node: of another node's log it needs nothing. Every checksum in the
// blocks is verified: a copy of damage is none. What is copied must leave reserve bytes of
// the disk free; otherwise it fails with model.ErrReadOnly.
func (o *Offer) CopyTo(ctx context.Context, dir string, reserve int64) ([]CopiedFile, error) {
	paths := map[string]string{}
	for _, b := range o.v.blocks {
		paths[b.ref.Name] = b.path
	}
	files, _, err := copyOffer(ctx, o.s.opts.FS, o.s.opts.ID, dir, o.Data, func(_ *Shard, ref *BlockRef, name string) (*CopiedFile, error) {
		return linkOrCopy(ctx, o.s.opts.FS, paths[ref.Name], name, reserve+ref.Bytes)
	})
	return files, err
}

// CopyOffer is CopyTo for the offer that another replica of shard id made, whose data this
// is: it fetches the blocks. It also returns the last entry of the log that is in the copy.
func CopyOffer(ctx context.Context, fsys vfs.FS, id int, dir string, data []byte, fetch Fetch, reserve int64) ([]CopiedFile, uint64, error) {
	return copyOffer(ctx, fsys, id, dir, data, func(s *Shard, ref *BlockRef, name string) (*CopiedFile, error) {
		if err := needRoom(fsys, name, reserve+ref.Bytes); err != nil {
			return nil, err
		}
		if err := s.copyBlock(ctx, *ref, name, fetch); err != nil {
			return nil, err
		}
		size, crc, err := SumFile(ctx, fsys, name)
		return &CopiedFile{Path: name, Size: size, CRC: crc}, err
	})
}

// copyOffer copies what an offer names; place brings a block to its name in the closed shard s.
func copyOffer(ctx context.Context, fsys vfs.FS, id int, dir string, data []byte, place func(s *Shard, ref *BlockRef, name string) (*CopiedFile, error)) ([]CopiedFile, uint64, error) {
	m, table, _, err := decodeOffer(data)
	if err != nil {
		return nil, 0, err
	}
	if m.Shard != id {
		return nil, 0, fmt.Errorf("%w: shard %d was offered for shard %d", ErrManifest, m.Shard, id)
	}
	to := Options{ID: id, Dir: dir, FS: fsys}
	to.EnsureDefaults()
	for _, d := range []string{dir, to.WarmDir, to.ColdDir} {
		if err := fsys.MkdirAll(d); err != nil {
			return nil, 0, err
		}
	}
	copied := &Shard{opts: to}
	var out []CopiedFile
	for i := range m.Blocks {
		ref := &m.Blocks[i]
		name := path.Join(copied.tierDir(ref.Tier), path.Base(ref.Name))
		f, err := place(copied, ref, name)
		if err != nil {
			return nil, 0, err
		}
		if err := checkSums(ctx, to, name, *ref); err != nil {
			return nil, 0, fmt.Errorf("block %s: %w", ref.Name, err)
		}
		out = append(out, *f)
	}
	small, err := copySmall(to, m, table)
	if err != nil {
		return nil, 0, err
	}
	for _, d := range []string{to.WarmDir, to.ColdDir, dir} {
		if err := fsys.SyncDir(d); err != nil {
			return nil, 0, err
		}
	}
	return append(out, small...), m.Applied, nil
}

// copySmall writes the series table and, last, the manifest.
func copySmall(to Options, m *Manifest, table []byte) ([]CopiedFile, error) {
	// The log is none of a single node's: it is to begin behind the manifest, in term 1.
	m.Term, m.Configuration, m.ConfigurationIndex, m.Installed = 1, nil, 0, true
	var out []CopiedFile
	if m.Table != nil {
		name := path.Join(to.Dir, m.Table.Name)
		if err := vfs.WriteFile(to.FS, name, table); err != nil {
			return nil, err
		}
		out = append(out, CopiedFile{Path: name, Size: int64(len(table)), CRC: crc32.Checksum(table, castagnoli)})
	}
	b, err := encodeManifest(m)
	if err != nil {
		return nil, err
	}
	name := path.Join(to.Dir, manifestName)
	out = append(out, CopiedFile{Path: name, Size: int64(len(b)), CRC: crc32.Checksum(b, castagnoli)})
	return out, vfs.WriteFile(to.FS, name, b)
}

// linkOrCopy gives a file that never changes a second name, or makes a copy of it.
func linkOrCopy(ctx context.Context, fsys vfs.FS, from, to string, need int64) (*CopiedFile, error) {
	if fsys.Link(from, to) == nil {
		size, crc, err := SumFile(ctx, fsys, to)
		return &CopiedFile{Path: to, Size: size, CRC: crc, Linked: true}, err
	}
	if err := needRoom(fsys, to, need); err != nil {
		return nil, err
	}
	return CopyFile(ctx, fsys, from, to)
}

func needRoom(fsys vfs.FS, to string, need int64) error {
	free, err := fsys.Free(path.Dir(to))
	if err == nil && free < uint64(need) {
		err = fmt.Errorf("%w: %d bytes are free and %d are wanted for the copy %s", model.ErrReadOnly, free, need, to)
	}
	return err
}

// copyPiece is how many bytes are copied at a time.
const copyPiece = 1 << 20

// CopyFile makes a durable copy of a file; the name is not yet durable.
func CopyFile(ctx context.Context, fsys vfs.FS, from, to string) (_ *CopiedFile, err error) {
	f, err := fsys.Create(to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	c := &CopiedFile{Path: to}
	c.Size, c.CRC, err = eachPiece(ctx, fsys, from, func(b []byte, off int64) error {
		_, err := f.WriteAt(b, off)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, f.Sync()
}

// SumFile returns a file's size and CRC32C.
func SumFile(ctx context.Context, fsys vfs.FS, name string) (size int64, crc uint32, err error) {
	return eachPiece(ctx, fsys, name, func([]byte, int64) error { return nil })
}

func eachPiece(ctx context.Context, fsys vfs.FS, name string, fn func(b []byte, off int64) error) (size int64, crc uint32, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size, err = f.Size(); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, min(copyPiece, size))
	for off := int64(0); off < size; off += int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return 0, 0, context.Cause(ctx)
		}
		buf = buf[:min(int64(len(buf)), size-off)]
		if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		crc = crc32.Update(crc, castagnoli, buf)
		if err := fn(buf, off); err != nil {
			return 0, 0, err
		}
	}
	return size, crc, nil
}
