package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// eachMeta runs a test on a store over bbolt and on one over a plain file; reopen
// closes it and opens it again.
func eachMeta(t *testing.T, test func(t *testing.T, m *metaStore, reopen func() *metaStore)) {
	run := func(fsys vfs.FS, dir string) func(t *testing.T) {
		return func(t *testing.T) {
			var m *metaStore
			open := func() *metaStore {
				if m != nil {
					if err := m.close(); err != nil {
						t.Fatal(err)
					}
				}
				var err error
				if m, err = openMeta(fsys, dir); err != nil {
					t.Fatal(err)
				}
				return m
			}
			open()
			test(t, m, open)
			if err := m.close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("bbolt", run(vfs.OS{}, t.TempDir()))
	mem := vfs.NewMem()
	if err := mem.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	t.Run("plain", run(mem, "d"))
}

func put(key, value string, guards ...model.Guard) model.RecordChange {
	return model.RecordChange{Guards: guards, Changes: []model.Change{{Key: key, Value: []byte(value)}}}
}

func TestRecords(t *testing.T) {
	eachMeta(t, func(t *testing.T, m *metaStore, reopen func() *metaStore) {
		must := func(index uint64, want [][]int, changes ...model.RecordChange) {
			t.Helper()
			failed, err := m.change(index, changes)
			if err != nil || !reflect.DeepEqual(failed, want) {
				t.Fatalf("failed guards %v, %v; want %v", failed, err, want)
			}
		}
		changed, stop := m.watch("a/")
		defer stop()
		must(1, [][]int{nil}, put("b/1", "other"))
		select {
		case <-changed:
			t.Fatal("told of another prefix")
		default:
		}
		// The second of one entry sees the first; the third fails and changes nothing.
		must(2, [][]int{nil, nil, {1}}, put("a/1", "x", model.Guard{Key: "a/1"}), put("a/2", "", model.Guard{Key: "a/1", Rev: 2}),
			put("a/1", "lost", model.Guard{Key: "b/1", Rev: 1}, model.Guard{Key: "a/2", Rev: 1}))
		<-changed
		want := []model.Record{{Key: "a/1", Value: []byte("x"), Rev: 2}, {Key: "a/2", Value: []byte{}, Rev: 3}}
		check := func() {
			t.Helper()
			if got := m.list("a/"); !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
		}
		check()
		m = reopen()
		check()
		must(2, [][]int{nil}, put("a/1", "again")) // an entry that comes again after a restart
		check()
		must(3, [][]int{nil}, model.RecordChange{Changes: []model.Change{{Key: "a/1", Delete: true}}})
		want = want[1:]
		check()
		must(4, [][]int{{0}}, put("a/1", "y", model.Guard{Key: "a/1", Rev: 2}))
		must(5, [][]int{nil}, put("a/1", "y", model.Guard{Key: "a/1"}))
		want = append([]model.Record{{Key: "a/1", Value: []byte("y"), Rev: 5}}, want...)
		check()
		m = reopen()
		check()
	})
}

// TestInstallMeta: a store that takes another's image is like it, also for what comes then.
func TestInstallMeta(t *testing.T) {
	eachMeta(t, func(t *testing.T, m *metaStore, reopen func() *metaStore) {
		rng := rand.New(rand.NewPCG(1, 2))
		other := &metaStore{file: &plainMeta{fs: vfs.NewMem(), name: "o"}}
		other.mu.metaState, other.mu.watchers = newMetaState(), map[*watcher]struct{}{}
		for i := range uint64(50) {
			key := "k" + strconv.Itoa(rng.IntN(8))
			c := []model.RecordChange{put(key, strconv.Itoa(int(i)))}
			c[0].Changes[0].Delete = rng.IntN(3) == 0
			if _, err := other.change(i+1, c); err != nil {
				t.Fatal(err)
			}
			if i < 10 {
				if _, err := m.change(i+1, c); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := other.put([]model.Metadata{{Metric: "up", Type: "gauge"}}); err != nil {
			t.Fatal(err)
		}
		image := other.image()
		if err := m.install(&image); err != nil {
			t.Fatal(err)
		}
		if m = reopen(); !reflect.DeepEqual(m.image(), image) {
			t.Fatalf("got %+v, want %+v", m.image(), image)
		}
	})
}

func TestChangeRecords(t *testing.T) {
	ctx := context.Background()
	f := newFixture(t, Options{})
	c := put("x", "1", model.Guard{Key: "x"})
	if err := f.DB.ChangeRecords(ctx, &c); err != nil {
		t.Fatal(err)
	}
	if err := f.DB.ChangeRecords(ctx, &c); !errors.Is(err, model.ErrConflict) {
		t.Fatalf("a guard that does not hold: %v", err)
	}
	c.Changes[0].Key = ""
	if err := f.DB.ChangeRecords(ctx, &c); !errors.Is(err, model.ErrBadRecord) {
		t.Fatalf("an empty key: %v", err)
	}
	f.close()
	f.open()
	if got := f.DB.Records(""); len(got) != 1 || string(got[0].Value) != "1" || got[0].Rev != 1 {
		t.Fatalf("after a restart: %+v", got)
	}
}

// TestMetaDamage: a flipped bit of the plain file is found.
func TestMetaDamage(t *testing.T) {
	mem := vfs.NewMem()
	m, err := openMeta(mem, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.change(1, []model.RecordChange{put("k", "v")}); err != nil {
		t.Fatal(err)
	}
	name := path.Join("", "meta.json")
	b, err := vfs.ReadFile(mem, name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		c := slices.Clone(b)
		c[i] ^= 1
		if err := vfs.WriteFile(mem, name, c); err != nil {
			t.Fatal(err)
		}
		if _, err := openMeta(mem, ""); err == nil {
			t.Fatalf("a bit flipped in byte %d was not found", i)
		}
	}
}

// TestMetaStopsAtFailure: after a save that failed nothing is saved any more.
func TestMetaStopsAtFailure(t *testing.T) {
	failing := false
	mem := vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if failing && op.Kind == vfs.OpSync {
			return syscall.EIO
		}
		return nil
	})
	m, err := openMeta(mem, "")
	if err != nil {
		t.Fatal(err)
	}
	failing = true
	if _, err := m.change(1, []model.RecordChange{put("k", "v")}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	failing = false
	before := mem.Ops()
	if _, err := m.change(2, []model.RecordChange{put("k", "w")}); !errors.Is(err, syscall.EIO) {
		t.Errorf("the next change: %v", err)
	}
	if n := mem.Ops() - before; n > 0 || len(m.list("")) > 0 {
		t.Errorf("%d operations, records %v", n, m.list(""))
	}
}

// FuzzMeta: a stored value that can be read is written again the same.
func FuzzMeta(f *testing.F) {
	b, err := encodeValue(&model.Metadata{Metric: "up", Type: "gauge", Help: "is \xff up"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, body []byte) {
		var md, again model.Metadata
		if err := decodeValue(body, &md); err == nil && len(body) < 4 {
			t.Fatal("no checksum")
		}
		sum := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli))
		if decodeValue(append(sum, body...), &md) != nil {
			return
		}
		enc, err := encodeValue(&md)
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeValue(enc, &again); err != nil || again != md {
			t.Fatalf("%v: got %v, want %v", err, again, md)
		}
	})
}

// TestBoltDamage: bytes flipped in the file's pages, or a file that was cut, give a corruption
// error or what was stored, and never a panic.
func TestBoltDamage(t *testing.T) {
	dir := t.TempDir()
	m, err := openMeta(vfs.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if _, err := m.change(uint64(i+1), []model.RecordChange{put(fmt.Sprintf("k%03d", i), strings.Repeat("v", 100))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	name := metaName(vfs.OS{}, dir)
	sound, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, b []byte) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(name), os.WriteFile(name, b, 0o600)); err != nil {
			t.Fatal(err)
		}
		m, err := openMeta(vfs.OS{}, dir)
		var damage *model.CorruptionError
		switch {
		case err == nil:
			if err := m.close(); err != nil {
				t.Error(err)
			}
		case !errors.As(err, &damage):
			t.Errorf("%s: %v", what, err)
		}
	}
	for at := 0; at < len(sound); at += 4096 {
		for _, k := range []int{8, 10, 12, 20, 24, 40} { // headers of pages, elements
			b := slices.Clone(sound)
			for i := range 4 {
				b[at+k+i] ^= 0x5a
			}
			try(fmt.Sprintf("flipped at %d", at+k), b)
		}
		try(fmt.Sprintf("cut at %d", at), sound[:at])
	}
	try("cut within a page", sound[:6000])
}
