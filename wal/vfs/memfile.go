package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// inode is a file's content, with what a power cut would bring back.
type inode struct {
	mu struct {
		sync.RWMutex
		data     []byte
		safeSize int64            // size at the last Sync
		old      map[int64][]byte // sectors written since the last Sync, as they were then
		lost     map[int64][]byte // those that a Sync which failed gave up, as the disk may have them for ever
	}
}

func (f *inode) size() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return int64(len(f.mu.data))
}

// crashClone returns the content after a power cut.
func (f *inode) crashClone(keep func() bool) *inode {
	f.mu.RLock()
	defer f.mu.RUnlock()
	out := &inode{}
	size := int64(len(f.mu.data))
	if size != f.mu.safeSize && !keep() {
		size = f.mu.safeSize
	}
	out.mu.data = make([]byte, size)
	copy(out.mu.data, f.mu.data)
	for _, sectors := range []map[int64][]byte{f.mu.old, f.mu.lost} {
		for _, s := range slices.Sorted(maps.Keys(sectors)) {
			if at := s * sectorSize; at < size && !keep() {
				clear(out.mu.data[at:min(at+sectorSize, size)])
				copy(out.mu.data[at:], sectors[s])
			}
		}
	}
	out.mu.safeSize = size
	return out
}

// rememberLocked saves the sectors of a range before they change.
func (f *inode) rememberLocked(from, to int64) {
	if f.mu.old == nil {
		f.mu.old = map[int64][]byte{}
	}
	for s := from / sectorSize; s*sectorSize < to; s++ {
		if _, ok := f.mu.old[s]; ok {
			continue
		}
		if b, ok := f.mu.lost[s]; ok { // written anew, it is for the next Sync again
			f.mu.old[s] = b
			delete(f.mu.lost, s)
			continue
		}
		var b []byte
		if at := s * sectorSize; at < int64(len(f.mu.data)) {
			b = append(b, f.mu.data[at:min(at+sectorSize, int64(len(f.mu.data)))]...)
		}
		f.mu.old[s] = b
	}
}

func (f *inode) truncate(size int64) error {
	if size < 0 {
		return fs.ErrInvalid
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resizeLocked(size)
	return nil
}

func (f *inode) resizeLocked(size int64) {
	old := int64(len(f.mu.data))
	if size < old {
		f.rememberLocked(size, old)
		clear(f.mu.data[size:])
		f.mu.data = f.mu.data[:size]
		return
	}
	if size <= int64(cap(f.mu.data)) {
		f.mu.data = f.mu.data[:size] // cleared when it was cut
		return
	}
	grown := make([]byte, size, max(size, min(2*old, old+1<<20)))
	copy(grown, f.mu.data)
	f.mu.data = grown
}

// memFile is one opening of an inode.
type memFile struct {
	*inode
	write  bool
	closed bool
}

// ReadAt implements File.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.inode.mu.RLock()
	defer f.inode.mu.RUnlock()
	if f.closed {
		return 0, fs.ErrClosed
	}
	if off >= int64(len(f.inode.mu.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.inode.mu.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.inode.mu.Lock()
	defer f.inode.mu.Unlock()
	if err := f.writableLocked(); err != nil {
		return 0, err
	}
	end := off + int64(len(p))
	f.rememberLocked(off, end)
	if end > int64(len(f.inode.mu.data)) {
		f.resizeLocked(end)
	}
	return copy(f.inode.mu.data[off:], p), nil
}

var errReadOnly = errors.New("vfs: file is open for reading only")

func (f *memFile) writableLocked() error {
	if f.closed {
		return fs.ErrClosed
	}
	if !f.write {
		return fmt.Errorf("write: %w", errReadOnly)
	}
	return nil
}

// Sync implements File.
func (f *memFile) Sync() error {
	f.inode.mu.Lock()
	defer f.inode.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	clear(f.inode.mu.old)
	f.inode.mu.safeSize = int64(len(f.inode.mu.data))
	return nil
}

// failSync is a Sync that fails as Linux does it: what was to be written shows in the page
// cache, counts as clean, and no later Sync writes it.
func (f *memFile) failSync() {
	f.inode.mu.Lock()
	defer f.inode.mu.Unlock()
	if f.inode.mu.lost == nil {
		f.inode.mu.lost = map[int64][]byte{}
	}
	maps.Copy(f.inode.mu.lost, f.inode.mu.old)
	clear(f.inode.mu.old)
}

// Truncate implements File.
func (f *memFile) Truncate(size int64) error { return f.truncate(size) }

// Preallocate implements File.
func (f *memFile) Preallocate(size int64) error {
	f.inode.mu.Lock()
	defer f.inode.mu.Unlock()
	if err := f.writableLocked(); err != nil {
		return err
	}
	if size > int64(len(f.inode.mu.data)) {
		f.resizeLocked(size)
	}
	return nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) { return f.size(), nil }

// Close implements File.
func (f *memFile) Close() error {
	f.inode.mu.Lock()
	defer f.inode.mu.Unlock()
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}
