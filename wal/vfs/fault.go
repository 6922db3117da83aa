package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
)

// OpKind names a file operation.
type OpKind uint8

// The operations that FaultFS counts and can fail.
const (
	OpCreate OpKind = iota + 1
	OpOpen
	OpRemove
	OpRename
	OpMkdir
	OpList
	OpStat
	OpSyncDir
	OpLock
	OpFree
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpPreallocate
	OpLink
)

var opNames = [...]string{"", "create", "open", "remove", "rename", "mkdir", "list", "stat", "syncdir", "lock", "free",
	"read", "write", "sync", "truncate", "preallocate", "link"}

// String returns the operation's name.
func (k OpKind) String() string {
	if int(k) < len(opNames) && k > 0 {
		return opNames[k]
	}
	return fmt.Sprintf("op(%d)", uint8(k))
}

// Op is one operation that is about to happen.
type Op struct {
	Kind OpKind
	Path string
	N    uint64 // counts all operations of the file system, from 1
}

// ShortWrite, returned by an injector for an OpWrite, lets the first Bytes through
// and then fails with Err.
type ShortWrite struct {
	Bytes int
	Err   error
}

// Error implements error.
func (e *ShortWrite) Error() string {
	return fmt.Sprintf("short write of %d bytes: %v", e.Bytes, e.Err)
}

// Unwrap returns the cause.
func (e *ShortWrite) Unwrap() error { return e.Err }

// FaultFS passes operations on to another file system unless its injector returns
// an error. Closing never fails.
type FaultFS struct {
	inner  FS
	inject func(Op) error
	n      atomic.Uint64
}

var _ FS = (*FaultFS)(nil)

// NewFault wraps inner. inject is called before each operation, by several
// goroutines at once if the file system is so used; nil injects nothing.
func NewFault(inner FS, inject func(Op) error) *FaultFS {
	return &FaultFS{inner: inner, inject: inject}
}

// Ops returns how many operations there have been.
func (f *FaultFS) Ops() uint64 { return f.n.Load() }

func (f *FaultFS) check(kind OpKind, name string) error {
	n := f.n.Add(1)
	if f.inject == nil {
		return nil
	}
	if err := f.inject(Op{Kind: kind, Path: name, N: n}); err != nil {
		return &fs.PathError{Op: kind.String(), Path: name, Err: err}
	}
	return nil
}

func (f *FaultFS) wrap(name string, file File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f, name: name}, nil
}

// Create implements FS.
func (f *FaultFS) Create(name string) (File, error) {
	if err := f.check(OpCreate, name); err != nil {
		return nil, err
	}
	file, err := f.inner.Create(name)
	return f.wrap(name, file, err)
}

// Open implements FS.
func (f *FaultFS) Open(name string) (File, error) {
	if err := f.check(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := f.inner.Open(name)
	return f.wrap(name, file, err)
}

// OpenReadWrite implements FS.
func (f *FaultFS) OpenReadWrite(name string) (File, error) {
	if err := f.check(OpOpen, name); err != nil {
		return nil, err
	}
	file, err := f.inner.OpenReadWrite(name)
	return f.wrap(name, file, err)
}

// Remove implements FS.
func (f *FaultFS) Remove(name string) error {
	if err := f.check(OpRemove, name); err != nil {
		return err
	}
	return f.inner.Remove(name)
}

// Rename implements FS.
func (f *FaultFS) Rename(oldname, newname string) error {
	if err := f.check(OpRename, oldname); err != nil {
		return err
	}
	return f.inner.Rename(oldname, newname)
}

// Link implements FS.
func (f *FaultFS) Link(oldname, newname string) error {
	if err := f.check(OpLink, newname); err != nil {
		return err
	}
	return f.inner.Link(oldname, newname)
}

// MkdirAll implements FS.
func (f *FaultFS) MkdirAll(dir string) error {
	if err := f.check(OpMkdir, dir); err != nil {
		return err
	}
	return f.inner.MkdirAll(dir)
}

// List implements FS.
func (f *FaultFS) List(dir string) ([]string, error) {
	if err := f.check(OpList, dir); err != nil {
		return nil, err
	}
	return f.inner.List(dir)
}

// Stat implements FS.
func (f *FaultFS) Stat(name string) (fs.FileInfo, error) {
	if err := f.check(OpStat, name); err != nil {
		return nil, err
	}
	return f.inner.Stat(name)
}

// SyncDir implements FS.
func (f *FaultFS) SyncDir(dir string) error {
	if err := f.check(OpSyncDir, dir); err != nil {
		return err
	}
	return f.inner.SyncDir(dir)
}

// Lock implements FS.
func (f *FaultFS) Lock(name string) (io.Closer, error) {
	if err := f.check(OpLock, name); err != nil {
		return nil, err
	}
	return f.inner.Lock(name)
}

// Free implements FS.
func (f *FaultFS) Free(dir string) (uint64, error) {
	if err := f.check(OpFree, dir); err != nil {
		return 0, err
	}
	return f.inner.Free(dir)
}
