package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// VerifyBackup reads all of a backup and reports each fault with the path of its file:
// sizes and checksums of files, and everything that Check looks at. Its own error says
// that there is no backup or that it could not look.
func VerifyBackup(ctx context.Context, fsys vfs.FS, dir string, report func(path string, err error)) (*Backup, error) {
	b, err := ReadBackup(fsys, dir)
	if err != nil {
		return nil, err
	}
	faults := false
	for i := range b.Files {
		f := &b.Files[i]
		name := path.Join(dir, f.Path)
		size, crc, err := shard.SumFile(ctx, fsys, name)
		if err == nil {
			err = compareFile(name, f, size, crc)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			faults = true
			report(name, err)
		}
	}
	if faults {
		return b, nil
	}
	if _, err := readImage(fsys, dir); err != nil {
		report(path.Join(dir, imageName), err)
	}
	for i := range b.Shards {
		at := path.Join(dir, shardPath(i))
		shard.Check(ctx, shard.Options{ID: i, Dir: at, FS: fsys}, report)
		if m, err := shard.ReadManifest(fsys, at); err == nil && m.Applied != b.Indexes[i] {
			report(at, fmt.Errorf("%w: it ends at entry %d, not %d", ErrBackup, m.Applied, b.Indexes[i]))
		}
	}
	return b, ctx.Err()
}

func compareFile(name string, f *shard.CopiedFile, size int64, crc uint32) error {
	switch {
	case size != f.Size:
		return &model.CorruptionError{Path: name, Offset: min(size, f.Size), Err: fmt.Errorf("%w: %d bytes instead of %d", ErrBackup, size, f.Size)}
	case crc != f.CRC:
		return &model.CorruptionError{Path: name, Err: fmt.Errorf("%w: checksum mismatch", ErrBackup)}
	}
	return nil
}

// restoringName marks a data folder that is not whole.
const restoringName = "RESTORING"

var (
	// ErrHalfRestored: a restore into the data folder began and did not end.
	ErrHalfRestored = errors.New("a restore into this folder was broken off: run it again, or empty the folder")
	// ErrNotEmpty: a restore needs an empty folder.
	ErrNotEmpty = errors.New("the folder is not empty")
)

func refuseHalfRestored(fsys vfs.FS, dir string) error {
	_, err := fsys.Stat(path.Join(dir, restoringName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = ErrHalfRestored
	}
	return fmt.Errorf("data folder %s: %w", dir, err)
}

// Restore makes dir, which must be empty or not there, the data folder of a single node
// from the backup in from, with all tiers below it. Each file is verified as it is copied.
// After an error nothing is left; after a crash the folder can't be opened, and another
// Restore begins anew. It fails with ErrBackup, a model.CorruptionError or ErrNotEmpty.
func Restore(ctx context.Context, fsys vfs.FS, from, dir string) (_ *Backup, err error) {
	b, err := ReadBackup(fsys, from)
	if err != nil {
		return nil, err
	}
	if err := vacant(fsys, dir); err != nil {
		return nil, err
	}
	if err := vfs.MakeDir(fsys, dir); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(path.Join(dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := vacant(fsys, dir); err != nil { // now that nobody else can change it
		return nil, err
	}
	if err := errors.Join(vfs.WriteFile(fsys, path.Join(dir, restoringName), nil), clearFolder(fsys, dir)); err != nil {
		return nil, err
	}
	if err := fill(ctx, fsys, b, from, dir); err != nil {
		return nil, errors.Join(err, clearFolder(fsys, dir), unmark(fsys, dir))
	}
	return b, unmark(fsys, dir)
}

// vacant fails if there is anything in dir but what a restore left that did not end.
func vacant(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || slices.Contains(names, restoringName) {
		return err
	}
	for _, name := range names {
		if name != "LOCK" && name != restoringName+vfs.TempSuffix {
			return fmt.Errorf("%w: %s holds %s: restore into another one, or empty it", ErrNotEmpty, dir, name)
		}
	}
	return nil
}

// clearFolder removes everything but the marks.
func clearFolder(fsys vfs.FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name != restoringName && name != "LOCK" {
			err = errors.Join(err, vfs.RemoveAll(fsys, path.Join(dir, name)))
		}
	}
	return errors.Join(err, fsys.SyncDir(dir))
}

func unmark(fsys vfs.FS, dir string) error {
	return errors.Join(fsys.Remove(path.Join(dir, restoringName)), fsys.SyncDir(dir))
}

// fill copies the backup into dir.
func fill(ctx context.Context, fsys vfs.FS, b *Backup, from, dir string) error {
	dirs := map[string]bool{path.Clean(dir): true}
	for i := range b.Files {
		f := &b.Files[i]
		to := path.Join(dir, f.Path)
		for d := path.Dir(to); !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
		}
		if err := fsys.MkdirAll(path.Dir(to)); err != nil {
			return err
		}
		got, err := shard.CopyFile(ctx, fsys, path.Join(from, f.Path), to)
		if err != nil {
			return err
		}
		if err := compareFile(path.Join(from, f.Path), f, got.Size, got.CRC); err != nil {
			return err
		}
	}
	if err := restoreMeta(fsys, dir); err != nil {
		return err
	}
	if err := fsys.MkdirAll(path.Join(dir, "wal")); err != nil { // empty, for Check
		return err
	}
	for d := range dirs {
		if err := fsys.SyncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// restoreMeta makes the store of metadata and records from the image that was copied.
func restoreMeta(fsys vfs.FS, dir string) error {
	image, err := readImage(fsys, dir)
	if err != nil {
		return err
	}
	m, err := openMeta(fsys, dir)
	if err != nil {
		return err
	}
	if err := errors.Join(m.install(image), m.close()); err != nil {
		return err
	}
	return fsys.Remove(path.Join(dir, imageName))
}
