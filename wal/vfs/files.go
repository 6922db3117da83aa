package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// maxWhole bounds what ReadFile takes into memory.
const maxWhole = 1 << 30

// ReadFile returns a whole file of at most 1 GiB.
func ReadFile(fsys FS, name string) (_ []byte, err error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > maxWhole {
		return nil, fmt.Errorf("%s: %d bytes are too many to read at once", name, n)
	}
	b := make([]byte, n)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// MakeDir makes a folder and its parents, durably.
func MakeDir(fsys FS, dir string) error {
	dir = path.Clean(dir)
	if _, err := fsys.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := MakeDir(fsys, path.Dir(dir)); err != nil {
		return err
	}
	if err := fsys.MkdirAll(dir); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(dir))
}

// RemoveAll deletes a folder, if there is one, with everything in it. Durable only after
// SyncDir of its folder.
func RemoveAll(fsys FS, dir string) error {
	fi, err := fsys.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		names, err := fsys.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := RemoveAll(fsys, path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return fsys.Remove(dir)
}

// TempSuffix marks files that are not in place yet.
const TempSuffix = ".tmp"

// WriteFile replaces a file durably and atomically: under a temporary name, synced,
// renamed, the folder synced. After an error either content may be there.
func WriteFile(fsys FS, name string, b []byte) error {
	tmp := name + TempSuffix
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}
