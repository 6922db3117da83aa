package engine

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

var (
	// ErrBackup: a folder is no sound backup.
	ErrBackup = errors.New("bad backup")
	// ErrBackupRuns: one backup at a time, of an engine and into a folder.
	ErrBackupRuns = errors.New("a backup is under way; try again when it is done")
	// ErrBackupExists: there is one by this name.
	ErrBackupExists = errors.New("there is a backup of this name")
	// ErrBackupName: the name can't be one.
	ErrBackupName = errors.New("a backup's name is 1 to 100 letters, digits, dots, dashes and underscores, begins with a letter or digit, and does not end in .tmp")
)

var backupNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// BackupOptions are those of one backup.
type BackupOptions struct {
	// Dir is the folder in which backups lie, each in a folder of its own.
	Dir string
	// Sync returns once this engine holds everything that was acknowledged before.
	// Nil: it always does.
	Sync func(context.Context) error
	// Holds fails if the engine's replica of a shard is not one to be trusted. Nil: all are.
	Holds func(shard int) error
	// Elsewhere calls copy with what another replica of a shard that Holds refuses offers
	// (Offer.Data) and how to read its blocks, if need be of one after another, and
	// returns once a copy has not failed. The offer holds everything that was
	// acknowledged before. Nil: what Holds refuses can't be backed up.
	Elsewhere func(ctx context.Context, shard int, copy func(data []byte, fetch Fetch) error) error
	// Skip tells of records, by their key, that they stay behind. Nil: none.
	Skip func(key string) bool
}

// Backup makes a backup in the folder name below o.Dir while the engine goes on. In it
// is every write that was acknowledged before the call; of each shard everything up to
// one entry of its log and nothing behind it; and all records at one revision. It fails
// with ErrBackupRuns, ErrBackupName, ErrBackupExists, model.ErrUnavailable or what Sync
// and Holds say, and then leaves nothing but the folder. What a crash leaves ends in .tmp, and the next
// backup removes it.
func (db *DB) Backup(ctx context.Context, name string, o *BackupOptions) (_ *Backup, err error) {
	if !backupNames.MatchString(name) || strings.HasSuffix(name, vfs.TempSuffix) {
		return nil, fmt.Errorf("%w: %q", ErrBackupName, name)
	}
	if !db.backingUp.TryLock() {
		return nil, ErrBackupRuns
	}
	defer db.backingUp.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(db.life, func() { cancel(model.ErrClosed) })()
	if db.life.Err() != nil {
		return nil, model.ErrClosed
	}
	lock, err := db.lockBackups(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	final := path.Join(o.Dir, name)
	if err := db.clearBackups(o.Dir, final); err != nil {
		return nil, err
	}
	b := &backup{db: db, o: o, dir: final + vfs.TempSuffix, info: Backup{Name: name, Made: db.opts.Clock.Now().UTC(),
		Shards: len(db.shards), HashVersion: hashVersion(db.pairLabel)}}
	defer func() {
		if err != nil {
			db.opts.Logger.Error("backup failed", "name", name, "err", err)
			err = errors.Join(err, vfs.RemoveAll(db.opts.FS, b.dir))
		}
	}()
	if err := b.make(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(db.opts.FS.Rename(b.dir, final), db.opts.FS.SyncDir(o.Dir)); err != nil {
		return nil, err
	}
	db.opts.Logger.Info("backup made", "name", name, "files", len(b.info.Files), "bytes", b.info.Bytes(), "copied_bytes", b.copied)
	return &b.info, nil
}

// backupsLock is a file in a folder of backups, held while one is made: what is not finished
// there and is another node's, to which the folder may be common, is not what a crash has left.
const backupsLock = ".LOCK" // no backup's name

// lockBackups makes the folder of backups and takes its lock.
func (db *DB) lockBackups(dir string) (io.Closer, error) {
	if err := vfs.MakeDir(db.opts.FS, dir); err != nil {
		return nil, err
	}
	lock, err := db.opts.FS.Lock(path.Join(dir, backupsLock))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w: that of another node into the same folder", ErrBackupRuns)
	}
	if errors.Is(err, syscall.ENOLCK) || errors.Is(err, errors.ErrUnsupported) {
		db.opts.Logger.Warn("the folder of backups can't be locked: see that no other node makes one in it at the same time", "dir", dir, "err", err)
		return io.NopCloser(nil), nil
	}
	return lock, err
}

// clearBackups removes what crashes left in the folder of backups.
func (db *DB) clearBackups(dir, final string) error {
	fsys := db.opts.FS
	if _, err := fsys.Stat(final); err == nil {
		return fmt.Errorf("%w: %s", ErrBackupExists, path.Base(final))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		rest, unfinished := strings.CutSuffix(name, vfs.TempSuffix)
		if !unfinished || !backupNames.MatchString(rest) {
			continue
		}
		db.opts.Logger.Info("removing a backup that was not finished", "name", rest)
		if err := vfs.RemoveAll(fsys, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// backup is one in the making.
type backup struct {
	db     *DB
	o      *BackupOptions
	dir    string
	info   Backup
	copied int64 // bytes not linked
}

func (b *backup) make(ctx context.Context) error {
	b.db.opts.Logger.Info("backup begins", "name", b.info.Name)
	if b.o.Sync != nil {
		if err := b.o.Sync(ctx); err != nil {
			return err
		}
	}
	fsys := b.db.opts.FS
	shards := path.Join(b.dir, "shards")
	if err := fsys.MkdirAll(shards); err != nil {
		return err
	}
	if err := b.addMeta(); err != nil {
		return err
	}
	for i := range b.db.shards {
		if err := b.addShard(ctx, i); err != nil {
			return fmt.Errorf("backup of shard %d: %w", i, err)
		}
	}
	if err := fsys.SyncDir(shards); err != nil {
		return err
	}
	manifest, err := encodeBackup(&b.info)
	if err != nil {
		return err
	}
	return vfs.WriteFile(fsys, path.Join(b.dir, backupName), manifest) // syncs the folder
}

// addMeta writes the folder's format, and metadata and records as those of a single node.
func (b *backup) addMeta() error {
	form, err := b.db.format()
	if err != nil {
		return err
	}
	if err := b.addFile(formatName, form); err != nil {
		return err
	}
	image := b.db.meta.image()
	image.Applied = 0 // of a log that it is not restored with
	image.Records = slices.DeleteFunc(image.Records, func(r model.Record) bool { return b.o.Skip != nil && b.o.Skip(r.Key) })
	b.info.Revision = image.Rev
	raw, err := encodeValue(&image)
	if err != nil {
		return err
	}
	return b.addFile(imageName, raw)
}

func (b *backup) addFile(name string, content []byte) error {
	b.info.Files = append(b.info.Files, shard.CopiedFile{Path: name, Size: int64(len(content)), CRC: crc32.Checksum(content, castagnoli)})
	return vfs.WriteFile(b.db.opts.FS, path.Join(b.dir, name), content)
}

func (b *backup) addShard(ctx context.Context, i int) error {
	files, index, err := b.copyHere(ctx, i)
	var away *awayError
	if errors.As(err, &away) && b.o.Elsewhere != nil {
		files, index, err = b.copyElsewhere(ctx, i)
	}
	if err != nil {
		return err
	}
	for _, f := range files {
		f.Path = strings.TrimPrefix(f.Path, path.Clean(b.dir)+"/")
		if !f.Linked {
			b.copied += f.Size
		}
		b.info.Files = append(b.info.Files, f)
	}
	b.info.Indexes = append(b.info.Indexes, index)
	b.db.opts.Logger.Info("backup of a shard made", "name", b.info.Name, "shard", i, "of", len(b.db.shards),
		"index", index, "files", len(files), "elsewhere", away != nil)
	return nil
}

// awayError is what Holds says.
type awayError struct{ error }

func (e *awayError) Unwrap() error { return e.error }

func (b *backup) holds(i int) error {
	if b.o.Holds == nil {
		return nil
	}
	if err := b.o.Holds(i); err != nil {
		return &awayError{err}
	}
	return nil
}

// copyHere copies the replica here.
func (b *backup) copyHere(ctx context.Context, i int) (_ []shard.CopiedFile, index uint64, err error) {
	if err := b.holds(i); err != nil {
		return nil, 0, err
	}
	s := b.db.shards[i]
	least := s.Applied()
	if err := b.db.flushShard(ctx, i); err != nil {
		return nil, 0, err
	}
	offer, err := s.Offer(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, offer.Release()) }()
	if err := b.holds(i); err != nil { // it may have gone meanwhile
		return nil, 0, err
	}
	if offer.Manifest.Applied < least {
		return nil, 0, fmt.Errorf("%w: entry %d is durable and %d is wanted; try again", model.ErrUnavailable, offer.Manifest.Applied, least)
	}
	files, err := offer.CopyTo(ctx, path.Join(b.dir, shardPath(i)), b.reserve())
	return files, offer.Manifest.Applied, err
}

// copyElsewhere copies another replica.
func (b *backup) copyElsewhere(ctx context.Context, i int) (files []shard.CopiedFile, index uint64, err error) {
	dir := path.Join(b.dir, shardPath(i))
	err = b.o.Elsewhere(ctx, i, func(data []byte, fetch Fetch) (err error) {
		if err := vfs.RemoveAll(b.db.opts.FS, dir); err != nil { // of a copy that failed
			return err
		}
		files, index, err = shard.CopyOffer(ctx, b.db.opts.FS, i, dir, data, fetch, b.reserve())
		return err
	})
	return files, index, err
}

// reserve is how much of the disk stays free.
func (b *backup) reserve() int64 { return max(0, b.db.opts.MinFreeBytes) }

func shardPath(i int) string { return path.Join("shards", fmt.Sprintf("%03d", i)) }
