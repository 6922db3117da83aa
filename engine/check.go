package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/strandline-db/strandline/shard"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

// Check verifies, offline, every checksum and cross reference in a data folder and
// reports each fault with the path of its file. Its own error says that it could
// not look, as when a server has the folder open.
func Check(dir string, o *Options, report func(path string, err error)) (err error) {
	db := &DB{dir: dir}
	if o != nil {
		db.opts = *o
	}
	db.opts.EnsureDefaults()
	name := path.Join(dir, formatName)
	b, err := vfs.ReadFile(db.opts.FS, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not a data folder: it has no file %s", dir, formatName)
	}
	if err != nil {
		return err
	}
	lock, err := db.opts.FS.Lock(path.Join(dir, "LOCK"))
	if err != nil {
		return lockError(dir, err, "stop the server first")
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	f, err := parseFormat(b)
	if err != nil {
		report(name, err)
		return nil
	}
	for i := range f.Shards {
		shard.Check(context.Background(), db.shardOptions(i), report)
	}
	logDir := path.Join(dir, "wal")
	return wal.Verify(db.opts.FS, logDir, func(segment string, off int64, err error) {
		report(path.Join(logDir, path.Base(segment)), fmt.Errorf("at byte %d: %w", off, err))
	})
}
