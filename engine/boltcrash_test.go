package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// boltTwin is a bbolt file and its twin in a memory that loses what is not synced. A commit of
// bbolt's is repeated there in bbolt's order: pages, a sync, the page that names the new state,
// a sync. What goes through the file-system interface goes to both.
type boltTwin struct {
	vfs.OS
	t    *testing.T
	rng  *rand.Rand
	name string
	mem  *vfs.MemFS
	bad  error // of the twin's syncs
	b    *boltMeta
	s    metaState
	last int // change that must be there after a power cut
}

const twinName = "twin"

func newBoltTwin(t *testing.T) *boltTwin {
	w := &boltTwin{t: t, rng: rand.New(rand.NewPCG(1, 1)), name: filepath.Join(t.TempDir(), "meta.db"), mem: vfs.NewMem()}
	w.load(vfs.OS{})
	w.close()
	if err := vfs.WriteFile(w.mem, twinName, w.content()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *boltTwin) load(fsys vfs.FS) {
	w.t.Helper()
	var err error
	if w.b, w.s, err = loadBolt(fsys, w.name); err != nil {
		w.t.Fatal(err)
	}
}

func (w *boltTwin) close() {
	if err := w.b.close(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *boltTwin) content() []byte {
	b, err := os.ReadFile(w.name)
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *boltTwin) twin() vfs.File {
	f, err := vfs.NewFault(w.mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpSync {
			return w.bad
		}
		return nil
	}).OpenReadWrite(twinName)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// OpenReadWrite implements vfs.FS.
func (w *boltTwin) OpenReadWrite(name string) (vfs.File, error) {
	f, err := w.OS.OpenReadWrite(name)
	return &twinFile{f, w.twin()}, err
}

type twinFile struct {
	vfs.File
	twin vfs.File
}

func (f *twinFile) WriteAt(b []byte, off int64) (int, error) {
	if _, err := f.twin.WriteAt(b, off); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, off)
}

func (f *twinFile) Sync() error  { return errors.Join(f.File.Sync(), f.twin.Sync()) }
func (f *twinFile) Close() error { return errors.Join(f.File.Close(), f.twin.Close()) }

// errKilled stands for a sync that a process does not come to.
var errKilled = errors.New("killed")

// commit repeats at the twin what a commit does to the file, and cuts the power before each sync.
// The last sync may be one that fails.
func (w *boltTwin) commit(do func(), last error) {
	w.t.Helper()
	before := w.content()
	do()
	after, heads := w.content(), 2*os.Getpagesize()
	before = append(before, make([]byte, len(after)-len(before))...)
	f := w.twin()
	for _, part := range [][2]int{{heads, len(after)}, {0, heads}} {
		for at := part[0]; at < part[1]; at += 512 {
			if b := after[at : at+512]; string(b) != string(before[at:at+512]) {
				if _, err := f.WriteAt(b, int64(at)); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		w.cut()
		if part[0] == 0 {
			w.bad = last
		}
		if w.bad == errKilled {
			break
		}
		if err := f.Sync(); !errors.Is(err, w.bad) {
			w.t.Fatal(err)
		}
	}
	w.bad = nil
	if err := f.Close(); err != nil {
		w.t.Fatal(err)
	}
}

const twinKeys = 40

func twinKey(i int) string { return fmt.Sprintf("k%d", i%twinKeys) }

// save makes the next change, of one of a few records that fill some pages together.
func (w *boltTwin) save(bad error) {
	w.t.Helper()
	i := w.last + 1
	c := &metaChange{place: &place{Rev: uint64(i)}, records: []model.Record{{Key: twinKey(i), Value: []byte(strconv.Itoa(i) + strings.Repeat(" ", 300))}}}
	w.commit(func() {
		if err := w.b.save(c, nil); err != nil {
			w.t.Fatal(err)
		}
		w.s.apply(c)
	}, bad)
	if bad == nil {
		w.last = i
		w.cut()
	}
}

// cut opens what a power cut leaves: all changes up to the last one, or the next one too.
func (w *boltTwin) cut() {
	w.t.Helper()
	for _, percent := range []int{0, 50, 50, 50, 100} {
		b, err := vfs.ReadFile(w.mem.CrashClone(w.rng, percent), twinName)
		if err != nil {
			w.t.Fatal(err)
		}
		name := filepath.Join(w.t.TempDir(), "meta.db")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			w.t.Fatal(err)
		}
		m, s, err := loadBolt(vfs.OS{}, name)
		if err != nil {
			w.t.Fatalf("after change %d and a power cut with %d %% kept: %v", w.last, percent, err)
		}
		if err := m.close(); err != nil {
			w.t.Fatal(err)
		}
		at := int(s.place.Rev)
		if at != w.last && at != w.last+1 {
			w.t.Fatalf("change %d is the last after a power cut with %d %% kept, not %d", at, percent, w.last)
		}
		for i := max(1, at-twinKeys+1); i <= at; i++ {
			if v := strings.TrimSpace(string(s.records[twinKey(i)].Value)); v != strconv.Itoa(i) {
				w.t.Fatalf("change %d after a power cut with %d %% kept: %s is %q", at, percent, twinKey(i), v)
			}
		}
	}
}

// TestBoltRestartThenPowerCut: a commit whose last sync failed, or never was, shows in the next
// life. All that is built on it survives a power cut at any step.
func TestBoltRestartThenPowerCut(t *testing.T) {
	for _, bad := range []error{syscall.EIO, errKilled} {
		w := newBoltTwin(t)
		w.load(vfs.OS{})
		for range 20 {
			w.save(nil)
		}
		w.save(bad)
		w.close()
		w.commit(func() { w.load(w) }, nil)
		if w.last = int(w.s.place.Rev); w.last != 21 {
			t.Fatalf("%v: change %d is the last", bad, w.last)
		}
		for range 5 {
			w.save(nil)
		}
		w.close()
	}
}

// TestBoltBornWhole: no file stands under its name before it is whole, and what is left of an
// earlier attempt does not matter.
func TestBoltBornWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "meta.db")
	broken := vfs.NewFault(vfs.OS{}, func(op vfs.Op) error {
		if op.Kind == vfs.OpRename {
			return syscall.EIO
		}
		return nil
	})
	if _, _, err := loadBolt(broken, name); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(name, nil, 0o600), os.WriteFile(name+vfs.TempSuffix, make([]byte, 9000), 0o600)); err != nil {
		t.Fatal(err)
	}
	b, _, err := loadBolt(vfs.OS{}, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.close(); err != nil {
		t.Fatal(err)
	}
}

// TestBoltPageTwice: a page that is referred to in place of another is noticed.
func TestBoltPageTwice(t *testing.T) {
	name := filepath.Join(t.TempDir(), "meta.db")
	b, _, err := loadBolt(vfs.OS{}, name)
	if err != nil {
		t.Fatal(err)
	}
	c := &metaChange{}
	for i := range 100 {
		c.records = append(c.records, model.Record{Key: fmt.Sprintf("k%03d", i), Value: make([]byte, 300)})
	}
	if err := errors.Join(b.save(c, nil), b.close()); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	const flags, elements, size, to = 8, 16, 16, 8 // in a page; in a branch's element
	for page := 0; page < len(file); page += os.Getpagesize() {
		if file[page+flags] == 1 { // a branch
			copy(file[page+elements+size+to:][:8], file[page+elements+to:])
		}
	}
	if err := os.WriteFile(name, file, 0o600); err != nil {
		t.Fatal(err)
	}
	var damage *model.CorruptionError
	if _, _, err := loadBolt(vfs.OS{}, name); !errors.As(err, &damage) {
		t.Errorf("got %v", err)
	}
}
