package vfs

import (
	"io"
	"io/fs"
)

// FS is the file system under every durable file of Strandline (bbolt's own
// aside). Names are slash-separated paths; a method's error wraps the
// fs.ErrNotExist family where it applies. Safe for concurrent use.
type FS interface {
	// Create makes a new empty file for reading and writing, truncating one that exists.
	Create(name string) (File, error)
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	// Remove deletes a file or an empty folder. Durable only after SyncDir of its folder.
	Remove(name string) error
	// Rename moves a file over newname atomically, or a folder to a name that is free.
	// Durable only after SyncDir of the folders.
	Rename(oldname, newname string) error
	// Link gives a file a second name, which must be free. It fails where the file system
	// has no such thing, as across two of them. Durable only after SyncDir of its folder.
	Link(oldname, newname string) error
	// MkdirAll makes a folder and its parents. Durable only after SyncDir of the parents.
	MkdirAll(dir string) error
	// List returns the names (not paths) in a folder, sorted.
	List(dir string) ([]string, error)
	// Stat describes a file.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the creation, renaming and removal of a folder's entries durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, which it creates; it fails at once
	// with ErrLocked if another process or opener holds it.
	Lock(name string) (io.Closer, error)
	// Free returns the bytes available to us on the disk that holds dir.
	Free(dir string) (uint64, error)
}

// File is an open file. ReadAt and WriteAt may be called concurrently; the rest
// may not.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync makes the file's bytes and size durable. After an error the page cache
	// can't be trusted: never retry, stop instead.
	Sync() error
	// Truncate sets the file's size.
	Truncate(size int64) error
	// Preallocate reserves disk space for the first size bytes and extends the file
	// with zeros to it. Where the system has no such call it only extends.
	Preallocate(size int64) error
	// Size returns the file's size.
	Size() (int64, error)
}
