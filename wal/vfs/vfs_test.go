package vfs_test

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"syscall"
	"testing"

	"github.com/strandline-db/strandline/wal/vfs"
)

// both runs a test on the machine's file system and on the one in memory.
func both(t *testing.T, fn func(t *testing.T, fsys vfs.FS, dir string)) {
	t.Run("os", func(t *testing.T) { fn(t, vfs.OS{}, t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := vfs.NewMem()
		if err := m.MkdirAll("a/b"); err != nil {
			t.Fatal(err)
		}
		fn(t, m, "a/b")
	})
}

func TestContract(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := path.Join(dir, "x")
		if _, err := fsys.Open(name); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("open of nothing: %v", err)
		}
		f, err := fsys.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Preallocate(4096); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("hello"), 4094); err != nil {
			t.Fatal(err)
		}
		if n, err := f.Size(); n != 4099 || err != nil {
			t.Fatalf("size %d, %v", n, err)
		}
		b := make([]byte, 10)
		if n, err := f.ReadAt(b, 4092); n != 7 || !errors.Is(err, io.EOF) || string(b[:n]) != "\x00\x00hello" {
			t.Fatalf("read %q, %v", b[:n], err)
		}
		if err := errors.Join(f.Truncate(4096), f.Truncate(4099), f.Sync()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(b[:3], 4096); err != nil || string(b[:3]) != "\x00\x00\x00" {
			t.Fatalf("bytes cut off came back: %q, %v", b[:3], err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		moved := path.Join(dir, "y")
		if err := errors.Join(fsys.Rename(name, moved), fsys.SyncDir(dir)); err != nil {
			t.Fatal(err)
		}
		if names, err := fsys.List(dir); err != nil || !slices.Equal(names, []string{"y"}) {
			t.Fatalf("%v, %v", names, err)
		}
		if fi, err := fsys.Stat(moved); err != nil || fi.Size() != 4099 || fi.IsDir() {
			t.Fatalf("%v, %v", fi, err)
		}
		if n, err := fsys.Free(dir); err != nil || n == 0 {
			t.Fatalf("%d bytes free, %v", n, err)
		}
		if err := fsys.Remove(moved); err != nil {
			t.Fatal(err)
		}
		if err := fsys.Remove(moved); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("second removal: %v", err)
		}
	})
}

func TestLock(t *testing.T) {
	both(t, func(t *testing.T, fsys vfs.FS, dir string) {
		name := path.Join(dir, "LOCK")
		for range 2 {
			l, err := fsys.Lock(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fsys.Lock(name); !errors.Is(err, vfs.ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestCrashClone checks both ends: at 0 % only what was synced is there, at 100 %
// all is, and between them each sector is the old one or the new one.
func TestCrashClone(t *testing.T) {
	m := vfs.NewMem()
	if err := vfs.WriteFile(m, "kept", slices.Repeat([]byte{1}, 2048)); err != nil {
		t.Fatal(err)
	}
	f, err := m.OpenReadWrite("kept")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(slices.Repeat([]byte{2}, 2048+512), 0); err != nil {
		t.Fatal(err)
	}
	if g, err := m.Create("new"); err != nil || g.Sync() != nil {
		t.Fatal(err)
	}
	for seed := range uint64(100) {
		percent := int(seed) % 3 * 50
		c := m.CrashClone(rand.New(rand.NewPCG(seed, 0)), percent)
		b, err := vfs.ReadFile(c, "kept")
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(b); at += 512 {
			v := b[at]
			ok := percent == 50 || percent == 0 && v == 1 || percent == 100 && v == 2
			if !ok || len(slices.Compact(slices.Clone(b[at:at+512]))) != 1 {
				t.Fatalf("%d %%: sector at %d is torn or %d", percent, at, v)
			}
		}
		if want := 2048 + percent/100*512; percent != 50 && len(b) != want {
			t.Fatalf("%d %%: %d bytes", percent, len(b))
		}
		if _, err := c.Stat("new"); percent != 50 && (err == nil) != (percent == 100) {
			t.Fatalf("%d %%: unsynced name: %v", percent, err)
		}
	}
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CrashClone(rand.New(rand.NewPCG(1, 1)), 0).Stat("new"); err != nil {
		t.Fatalf("synced name: %v", err)
	}
}

// TestRenameIsAtomic cuts the power in the middle of WriteFile's replacement.
func TestRenameIsAtomic(t *testing.T) {
	m := vfs.NewMem()
	if err := vfs.WriteFile(m, "x", []byte("old")); err != nil {
		t.Fatal(err)
	}
	var clones []*vfs.MemFS
	rng := rand.New(rand.NewPCG(5, 5))
	faulty := vfs.NewFault(m, func(vfs.Op) error {
		for range 20 {
			clones = append(clones, m.CrashClone(rng, 50))
		}
		return nil
	})
	if err := vfs.WriteFile(faulty, "x", []byte("new")); err != nil {
		t.Fatal(err)
	}
	for _, c := range clones {
		if b, err := vfs.ReadFile(c, "x"); err != nil || string(b) != "old" && string(b) != "new" {
			t.Fatalf("%q, %v", b, err)
		}
	}
}

func TestFault(t *testing.T) {
	m := vfs.NewMem()
	for n := uint64(1); n <= 5; n++ {
		f := vfs.NewFault(m, func(op vfs.Op) error {
			if op.N == n {
				return syscall.EIO
			}
			return nil
		})
		if err := vfs.WriteFile(f, "x", []byte("data")); !errors.Is(err, syscall.EIO) {
			t.Fatalf("operation %d: %v", n, err)
		}
		if f.Ops() != n {
			t.Fatalf("%d operations, want %d", f.Ops(), n)
		}
	}
	short := vfs.NewFault(m, func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite {
			return &vfs.ShortWrite{Bytes: 2, Err: syscall.ENOSPC}
		}
		return nil
	})
	f, err := short.Create("y")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.WriteAt([]byte("data"), 0); n != 2 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("short write: %d, %v", n, err)
	}
	if b, err := vfs.ReadFile(m, "y"); string(b) != "da" {
		t.Fatalf("%q, %v", b, err)
	}
}
