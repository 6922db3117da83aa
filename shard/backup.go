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
	to := Options{ID: o.s.opts.ID, Dir: dir, FS: o.s.opts.FS}
	to.EnsureDefaults()
	for _, d := range []string{dir, to.WarmDir, to.ColdDir} {
		if err := to.FS.MkdirAll(d); err != nil {
			return nil, err
		}
	}
	copied := Shard{opts: to}
	var out []CopiedFile
	for _, b := range o.v.blocks {
		name := path.Join(copied.tierDir(b.ref.Tier), b.ref.Name)
		f, err := linkOrCopy(ctx, to.FS, b.path, name, reserve+b.ref.Bytes)
		if err != nil {
			return nil, err
		}
		if err := checkSums(ctx, to, name, b.ref); err != nil {
			return nil, fmt.Errorf("block %s: %w", b.path, err)
		}
		out = append(out, *f)
	}
	small, err := o.copySmall(to)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{to.WarmDir, to.ColdDir, dir} {
		if err := to.FS.SyncDir(d); err != nil {
			return nil, err
		}
	}
	return append(out, small...), nil
}

// copySmall writes the series table and, last, the manifest.
func (o *Offer) copySmall(to Options) ([]CopiedFile, error) {
	m, table, _, err := decodeOffer(o.Data)
	if err != nil {
		return nil, err
	}
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
	free, err := fsys.Free(path.Dir(to))
	if err != nil {
		return nil, err
	}
	if free < uint64(need) {
		return nil, fmt.Errorf("%w: %d bytes are free and %d are wanted for the copy of %s", model.ErrReadOnly, free, need, from)
	}
	return CopyFile(ctx, fsys, from, to)
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
