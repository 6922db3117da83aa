package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// sectorSize is the unit in which a disk writes, in bytes.
const sectorSize = 512

// MemFS is a file system in memory that knows what has been synced. Folders are
// durable as soon as they are made; files and names are not.
type MemFS struct {
	mu struct {
		sync.Mutex
		dirs  map[string]bool
		files map[string]*inode // what is seen now
		safe  map[string]*inode // what a power cut surely leaves
		ops   []dirOp           // between the two, oldest first
		locks map[string]bool
		free  uint64
	}
}

var _ FS = (*MemFS)(nil)

// dirOp sets a name to a file, or removes it (nil). A rename is both at once.
type dirOp struct {
	dir  string
	name string
	file *inode
	from string // removed together with setting name; empty if none
	// moved are the files of a folder that is renamed, all at once, and dirs the folders,
	// new name to old; the rest is empty but for dir.
	moved []dirOp
	dirs  map[string]string
}

// NewMem returns an empty file system.
func NewMem() *MemFS {
	m := &MemFS{}
	m.mu.dirs = map[string]bool{".": true, "/": true}
	m.mu.files = map[string]*inode{}
	m.mu.safe = map[string]*inode{}
	m.mu.locks = map[string]bool{}
	m.mu.free = 1 << 40
	return m
}

// SetFree sets what Free returns.
func (m *MemFS) SetFree(bytes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.free = bytes
}

// CrashClone returns what a power cut now would leave: each unsynced sector, size
// and name is kept with a probability of percent in a hundred. The original goes on
// unchanged, and locks are not taken over.
func (m *MemFS) CrashClone(rng *rand.Rand, percent int) *MemFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	keep := func() bool { return rng.IntN(100) < percent }
	out := NewMem()
	for d := range m.mu.dirs {
		out.mu.dirs[d] = true
	}
	names := map[string]*inode{}
	for n, f := range m.mu.safe {
		names[n] = f
	}
	for _, op := range m.mu.ops {
		if keep() {
			op.apply(names)
			continue
		}
		for now, before := range op.dirs {
			delete(out.mu.dirs, now)
			out.mu.dirs[before] = true
		}
	}
	clones := map[*inode]*inode{}
	sorted := make([]string, 0, len(names))
	for n := range names {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted) // so that a seed gives the same state again
	for _, n := range sorted {
		f := names[n]
		if clones[f] == nil {
			clones[f] = f.crashClone(keep)
		}
		out.mu.files[n], out.mu.safe[n] = clones[f], clones[f]
		for d := path.Dir(n); !out.mu.dirs[d]; d = path.Dir(d) { // of a folder whose renaming did not last
			out.mu.dirs[d] = true
		}
	}
	return out
}

func (op *dirOp) apply(names map[string]*inode) {
	for _, f := range op.moved {
		if names[f.from] == f.file {
			f.apply(names)
		}
	}
	if op.dirs != nil {
		return
	}
	if op.from != "" && names[op.from] == op.file {
		delete(names, op.from)
	}
	if op.file == nil {
		delete(names, op.name)
		return
	}
	names[op.name] = op.file
}

func notExist(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// changeLocked does a directory operation and remembers that it is not durable.
func (m *MemFS) changeLocked(op dirOp) {
	op.apply(m.mu.files)
	m.mu.ops = append(m.mu.ops, op)
}

// Create implements FS.
func (m *MemFS) Create(name string) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.dirs[path.Dir(name)] {
		return nil, notExist("create", name)
	}
	if f := m.mu.files[name]; f != nil {
		return &memFile{inode: f, write: true}, f.truncate(0)
	}
	f := &inode{}
	m.changeLocked(dirOp{dir: path.Dir(name), name: name, file: f})
	return &memFile{inode: f, write: true}, nil
}

// Open implements FS.
func (m *MemFS) Open(name string) (File, error) { return m.open(name, false) }

// OpenReadWrite implements FS.
func (m *MemFS) OpenReadWrite(name string) (File, error) { return m.open(name, true) }

func (m *MemFS) open(name string, write bool) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.mu.files[name]
	if f == nil {
		return nil, notExist("open", name)
	}
	return &memFile{inode: f, write: write}, nil
}

// Remove implements FS.
func (m *MemFS) Remove(name string) error {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.files[name] != nil {
		m.changeLocked(dirOp{dir: path.Dir(name), name: name})
		return nil
	}
	if !m.mu.dirs[name] {
		return notExist("remove", name)
	}
	if len(m.listLocked(name)) > 0 {
		return fmt.Errorf("remove %s: folder is not empty", name)
	}
	delete(m.mu.dirs, name)
	return nil
}

// Rename implements FS.
func (m *MemFS) Rename(oldname, newname string) error {
	oldname, newname = path.Clean(oldname), path.Clean(newname)
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.mu.files[oldname]
	if f == nil && m.mu.dirs[oldname] {
		return m.renameDirLocked(oldname, newname)
	}
	if f == nil || !m.mu.dirs[path.Dir(newname)] {
		return notExist("rename", oldname)
	}
	m.changeLocked(dirOp{dir: path.Dir(newname), name: newname, file: f, from: oldname})
	return nil
}

func (m *MemFS) renameDirLocked(oldname, newname string) error {
	if !m.mu.dirs[path.Dir(newname)] {
		return notExist("rename", newname)
	}
	if m.mu.dirs[newname] || m.mu.files[newname] != nil {
		return &fs.PathError{Op: "rename", Path: newname, Err: fs.ErrExist}
	}
	op := dirOp{dir: path.Dir(newname), dirs: map[string]string{}}
	for d := range m.mu.dirs {
		if rest, below := strings.CutPrefix(d+"/", oldname+"/"); below {
			op.dirs[path.Join(newname, rest)] = d
		}
	}
	for now, before := range op.dirs {
		delete(m.mu.dirs, before)
		m.mu.dirs[now] = true
	}
	for name, f := range m.mu.files {
		if rest, below := strings.CutPrefix(name, oldname+"/"); below {
			op.moved = append(op.moved, dirOp{name: path.Join(newname, rest), file: f, from: name})
		}
	}
	m.changeLocked(op)
	return nil
}

// Link implements FS.
func (m *MemFS) Link(oldname, newname string) error {
	oldname, newname = path.Clean(oldname), path.Clean(newname)
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.mu.files[oldname]
	if f == nil || !m.mu.dirs[path.Dir(newname)] {
		return notExist("link", oldname)
	}
	if m.mu.files[newname] != nil {
		return &fs.PathError{Op: "link", Path: newname, Err: fs.ErrExist}
	}
	m.changeLocked(dirOp{dir: path.Dir(newname), name: newname, file: f})
	return nil
}

// MkdirAll implements FS.
func (m *MemFS) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := path.Clean(dir); !m.mu.dirs[d]; d = path.Dir(d) {
		m.mu.dirs[d] = true
	}
	return nil
}

// List implements FS.
func (m *MemFS) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.dirs[dir] {
		return nil, notExist("list", dir)
	}
	return m.listLocked(dir), nil
}

func (m *MemFS) listLocked(dir string) []string {
	var names []string
	for n := range m.mu.files {
		if path.Dir(n) == dir {
			names = append(names, path.Base(n))
		}
	}
	for n := range m.mu.dirs {
		if n != dir && path.Dir(n) == dir {
			names = append(names, path.Base(n))
		}
	}
	slices.Sort(names)
	return names
}

// Stat implements FS.
func (m *MemFS) Stat(name string) (fs.FileInfo, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.mu.files[name]; f != nil {
		return memInfo{name: path.Base(name), size: f.size()}, nil
	}
	if m.mu.dirs[name] {
		return memInfo{name: path.Base(name), dir: true}, nil
	}
	return nil, notExist("stat", name)
}

// SyncDir implements FS.
func (m *MemFS) SyncDir(dir string) error {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.dirs[dir] {
		return notExist("sync", dir)
	}
	m.mu.ops = slices.DeleteFunc(m.mu.ops, func(op dirOp) bool {
		if op.dir == dir {
			op.apply(m.mu.safe)
			return true
		}
		return false
	})
	return nil
}

// Lock implements FS.
func (m *MemFS) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.locks[name] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	if !m.mu.dirs[path.Dir(name)] {
		return nil, notExist("lock", name)
	}
	if m.mu.files[name] == nil {
		m.changeLocked(dirOp{dir: path.Dir(name), name: name, file: &inode{}})
	}
	m.mu.locks[name] = true
	return &memLock{fs: m, name: name}, nil
}

type memLock struct {
	fs   *MemFS
	name string
}

// Close releases the lock.
func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.mu.locks, l.name)
	return nil
}

// Free implements FS.
func (m *MemFS) Free(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.free, nil
}

// String lists the files with their sizes, for a failed test's message.
func (m *MemFS) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var lines []string
	for n, f := range m.mu.files {
		lines = append(lines, fmt.Sprintf("%s %d\n", n, f.size()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

type memInfo struct {
	name string
	size int64
	dir  bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
