package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// copyOf is what a ledger says now.
func (l *ledger) copyOf() *ledger {
	c := newLedger()
	for _, x := range []struct{ to, from map[string]map[int64]uint64 }{{c.acked, l.acked}, {c.sent, l.sent}} {
		for k, v := range x.from {
			x.to[k] = maps.Clone(v)
		}
	}
	return c
}

// filled opens an engine with samples, some of them in blocks, records and metadata.
func filled(t *testing.T, fsys vfs.FS, dir string) (*DB, *ledger, func(n int)) {
	t.Helper()
	db, err := Open(dir, memOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() }) // a faulty disk's Close may fail
	l, rng := newLedger(), rand.New(rand.NewPCG(3, 3))
	write := func(n int) {
		b := batchOf(rng, n)
		note(l.sent, b)
		if _, err := db.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		note(l.acked, b)
	}
	for n := range 12 {
		write(n)
		if n%4 == 1 {
			if err := db.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(
		db.ChangeRecords(t.Context(), &model.RecordChange{Changes: []model.Change{{Key: "kept/a", Value: []byte("1")}, {Key: "left/b", Value: []byte("2")}}}),
		db.meta.put([]model.Metadata{{Metric: "m", Type: "gauge", Help: "h"}}),
	); err != nil {
		t.Fatal(err)
	}
	return db, l, write
}

func skipLeft(key string) bool { return path.Dir(key) == "left" }

func backupOptions(dir string) *BackupOptions { return &BackupOptions{Dir: dir, Skip: skipLeft} }

// TestBackupAndRestore: what is restored is what there was when the backup began, to the
// last write and no further, with records and metadata, and it takes writes.
func TestBackupAndRestore(t *testing.T) {
	for name, at := range map[string]struct {
		fsys vfs.FS
		root string
	}{"memory": {vfs.NewMem(), "x"}, "disk": {vfs.OS{}, t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			data, backups, restored := path.Join(at.root, "data"), path.Join(at.root, "deep/backups"), path.Join(at.root, "new/restored")
			db, l, write := filled(t, at.fsys, data)
			then := l.copyOf()
			b, err := db.Backup(t.Context(), "b1", backupOptions(backups))
			if err != nil {
				t.Fatal(err)
			}
			if b.Shards != 2 || len(b.Indexes) != 2 || b.Indexes[0] == 0 || b.Revision != 1 {
				t.Fatalf("%+v", b)
			}
			write(100)
			if _, err := db.Backup(t.Context(), "b1", backupOptions(backups)); !errors.Is(err, ErrBackupExists) {
				t.Fatal(err)
			}
			if _, err := db.Backup(t.Context(), "b2", backupOptions(backups)); err != nil {
				t.Fatal(err)
			}
			sound(t, at.fsys, path.Join(backups, "b1"))
			sound(t, at.fsys, path.Join(backups, "b2"))
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), at.fsys, path.Join(backups, "b1"), restored); err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), at.fsys, path.Join(backups, "b1"), restored); !errors.Is(err, ErrNotEmpty) {
				t.Fatal(err)
			}
			if err := judgeDir(at.fsys, restored, then); err != nil {
				t.Fatal(err)
			}
			lives(t, at.fsys, restored, then)
		})
	}
}

// lives writes to a restored folder and opens it again.
func lives(t *testing.T, fsys vfs.FS, dir string, l *ledger) {
	t.Helper()
	db, err := Open(dir, memOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if got := db.Records(""); len(got) != 1 || got[0].Key != "kept/a" || string(got[0].Value) != "1" || got[0].Rev != 1 {
		t.Fatalf("records %+v", got)
	}
	if got, err := db.Metadata(t.Context(), "m"); err != nil || len(got) != 1 || got[0].Help != "h" {
		t.Fatalf("metadata %+v, %v", got, err)
	}
	for i := range db.shards {
		if m := db.shards[i].Manifest(); m.Term != 1 || len(m.Configuration) > 0 {
			t.Fatalf("shard %d: %+v", i, m)
		}
	}
	batch := batchOf(rand.New(rand.NewPCG(8, 8)), 500)
	note(l.sent, batch)
	if _, err := db.Append(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	note(l.acked, batch)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := judgeDir(fsys, dir, l); err != nil {
		t.Fatal(err)
	}
}

func sound(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	if _, err := VerifyBackup(t.Context(), fsys, dir, func(p string, err error) { t.Errorf("%s: %v", p, err) }); err != nil {
		t.Fatal(err)
	}
}

// TestBackupLinks: blocks take no room a second time, and a backup keeps them when the
// shard lets them go.
func TestBackupLinks(t *testing.T) {
	root := t.TempDir()
	db, _, _ := filled(t, vfs.OS{}, filepath.Join(root, "data"))
	for _, name := range []string{"b1", "b2"} {
		if _, err := db.Backup(t.Context(), name, backupOptions(filepath.Join(root, "backups"))); err != nil {
			t.Fatal(err)
		}
	}
	blocks := 0
	for i, s := range db.shards {
		for _, b := range s.Blocks() {
			file := filepath.Join(shardPath(i), b.Name)
			var infos []os.FileInfo
			for _, dir := range []string{"data", "backups/b1", "backups/b2"} {
				fi, err := os.Stat(filepath.Join(root, dir, file))
				if err != nil {
					t.Fatal(err)
				}
				infos = append(infos, fi)
			}
			if !os.SameFile(infos[0], infos[1]) || !os.SameFile(infos[0], infos[2]) {
				t.Fatalf("%s was copied", file)
			}
			blocks++
		}
		if err := s.Wipe(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if blocks == 0 {
		t.Fatal("no blocks")
	}
	sound(t, vfs.OS{}, filepath.Join(root, "backups/b1"))
}

// TestBackupRefuses: what can't be made is not begun, and leaves nothing.
func TestBackupRefuses(t *testing.T) {
	mem := vfs.NewMem()
	db, _, _ := filled(t, mem, "data")
	for _, name := range []string{"", ".", "..", "a/b", "../b", ".b", "b.tmp", "b c", string(make([]byte, 200))} {
		if _, err := db.Backup(t.Context(), name, backupOptions("backups")); !errors.Is(err, ErrBackupName) {
			t.Fatalf("%q: %v", name, err)
		}
	}
	wrong := errors.New("wrong")
	o := backupOptions("backups")
	o.Sync = func(ctx context.Context) error {
		if _, err := db.Backup(ctx, "second", backupOptions("backups")); !errors.Is(err, ErrBackupRuns) {
			t.Errorf("a second one at the same time: %v", err)
		}
		return nil
	}
	o.Holds = func(shard int) error {
		if shard == 1 {
			return wrong
		}
		return nil
	}
	if _, err := db.Backup(t.Context(), "b", o); !errors.Is(err, wrong) {
		t.Fatal(err)
	}
	o.Holds = nil
	done := make(chan error, 1)
	o.Sync = func(ctx context.Context) error {
		go func() { done <- db.Close() }()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if _, err := db.Backup(t.Context(), "b", o); !errors.Is(err, model.ErrClosed) {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if names, err := mem.List("backups"); err != nil || !slices.Equal(names, []string{backupsLock}) {
		t.Fatal(names, err)
	}
}

// TestBackupCopies: where links can't be made the files are copied, but not into the last
// of the disk.
func TestBackupCopies(t *testing.T) {
	mem := vfs.NewMem()
	fsys := vfs.NewFault(mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpLink {
			return syscall.EXDEV
		}
		return nil
	})
	db, l, _ := filled(t, fsys, "data")
	if _, err := db.Backup(t.Context(), "b", backupOptions("backups")); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), fsys, "backups/b", "restored"); err != nil {
		t.Fatal(err)
	}
	if err := judgeDir(fsys, "restored", l); err != nil {
		t.Fatal(err)
	}
	mem.SetFree(1)
	if _, err := db.Backup(t.Context(), "c", backupOptions("backups")); !errors.Is(err, model.ErrReadOnly) {
		t.Fatal(err)
	}
	if names, err := mem.List("backups"); err != nil || !slices.Equal(names, []string{backupsLock, "b"}) {
		t.Fatal(names, err)
	}
}

// TestBackupPowerCut cuts the power at each file operation of a backup: either it is there
// and sound, or the next one of the same name is made; and nothing is lost.
func TestBackupPowerCut(t *testing.T) {
	mem := vfs.NewMem()
	var states []*vfs.MemFS
	rng := rand.New(rand.NewPCG(4, 4))
	armed := false
	db, l, _ := filled(t, vfs.NewFault(mem, func(vfs.Op) error {
		if armed {
			states = append(states, mem.CrashClone(rng, []int{0, 50, 100}[rng.IntN(3)]))
		}
		return nil
	}), "data")
	armed = true
	if _, err := db.Backup(t.Context(), "b", backupOptions("backups")); err != nil {
		t.Fatal(err)
	}
	armed = false
	states = append(states, mem.CrashClone(rng, 0))
	whole := 0
	for i, state := range states {
		if err := backedUp(state, l, &whole); err != nil {
			t.Fatalf("operation %d of %d: %v", i, len(states), err)
		}
	}
	if whole == 0 || whole == len(states) || len(states) < 40 {
		t.Fatalf("%d of %d states had a backup", whole, len(states))
	}
	if names, err := states[len(states)-1].List("backups"); err != nil || !slices.Equal(names, []string{backupsLock, "b"}) {
		t.Fatal(names, err)
	}
}

func backedUp(state *vfs.MemFS, l *ledger, whole *int) error {
	db, err := Open("data", memOptions(state))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = state.Stat("backups/b")
	if err == nil {
		*whole++
	} else if _, err := db.Backup(context.Background(), "b", backupOptions("backups")); err != nil {
		return err
	}
	var faults error
	if _, err := VerifyBackup(context.Background(), state, "backups/b", func(p string, err error) { faults = errors.Join(faults, fmt.Errorf("%s: %w", p, err)) }); err != nil || faults != nil {
		return errors.Join(err, faults)
	}
	if _, err := state.Stat("backups/b.tmp"); err == nil {
		return errors.New("an unfinished backup is left")
	}
	if _, err := Restore(context.Background(), state, "backups/b", "restored"); err != nil {
		return err
	}
	return errors.Join(judgeDir(state, "restored", l), db.Close(), judgeFolder(state, l))
}

// TestBackupFaults fails each file operation of a backup, as a full disk does: it fails
// and leaves no backup, or nothing was needed of that operation.
func TestBackupFaults(t *testing.T) {
	for at := uint64(1); ; at++ {
		mem := vfs.NewMem()
		var base uint64
		fired := false
		fsys := vfs.NewFault(mem, func(op vfs.Op) error {
			if base > 0 && op.N == base+at {
				fired = true
				return syscall.ENOSPC
			}
			return nil
		})
		db, l, _ := filled(t, fsys, "data")
		base = fsys.Ops()
		_, err := db.Backup(t.Context(), "b", backupOptions("backups"))
		base = 0
		_, missing := mem.Stat("backups/b")
		if err == nil && missing != nil {
			t.Fatalf("operation %d: no backup and no error", at)
		}
		_ = db.Close() // may fail, if it was the engine's own operation
		if err := judgeFolder(mem, l); err != nil {
			t.Fatalf("operation %d: %v", at, err)
		}
		if missing == nil {
			sound(t, mem, "backups/b")
		}
		if !fired {
			if err != nil || at < 40 {
				t.Fatalf("%d operations: %v", at, err)
			}
			return
		}
	}
}

// TestRestorePowerCut cuts the power at each file operation of a restore: the folder is
// empty, or refuses to be opened, or is whole; and a restore can be made again.
func TestRestorePowerCut(t *testing.T) {
	mem := vfs.NewMem()
	db, l, _ := filled(t, mem, "data")
	if _, err := db.Backup(t.Context(), "b", backupOptions("backups")); err != nil {
		t.Fatal(err)
	}
	var states []*vfs.MemFS
	rng := rand.New(rand.NewPCG(6, 6))
	fsys := vfs.NewFault(mem, func(vfs.Op) error {
		states = append(states, mem.CrashClone(rng, []int{0, 50, 100}[rng.IntN(3)]))
		return nil
	})
	if _, err := Restore(t.Context(), fsys, "backups/b", "restored"); err != nil {
		t.Fatal(err)
	}
	states = append(states, mem.CrashClone(rng, 0))
	kinds := map[string]int{}
	for i, state := range states {
		kind, err := restoredState(state, l)
		if err != nil {
			t.Fatalf("operation %d of %d: %v", i, len(states), err)
		}
		kinds[kind]++
	}
	if len(kinds) != 3 || len(states) < 40 {
		t.Fatal(kinds, len(states))
	}
}

func restoredState(state *vfs.MemFS, l *ledger) (kind string, err error) {
	kind = "empty"
	names, err := state.List("restored")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if slices.Contains(names, restoringName) {
		kind = "half"
		if _, err := Open("restored", memOptions(state)); !errors.Is(err, ErrHalfRestored) {
			return "", fmt.Errorf("opened: %w", err)
		}
	} else if slices.Contains(names, formatName) {
		return "whole", judgeDir(state, "restored", l)
	}
	if _, err := Restore(context.Background(), state, "backups/b", "restored"); err != nil {
		return "", err
	}
	return kind, judgeDir(state, "restored", l)
}

// TestBackupFlippedBit: one bit in any file of a backup is found by verify and by restore,
// which leaves nothing.
func TestBackupFlippedBit(t *testing.T) {
	mem := vfs.NewMem()
	db, _, _ := filled(t, mem, "data")
	b, err := db.Backup(t.Context(), "b", backupOptions("backups"))
	if err != nil {
		t.Fatal(err)
	}
	files := []string{backupName}
	for _, f := range b.Files {
		files = append(files, f.Path)
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for _, file := range files {
		for range 5 {
			state := mem.CrashClone(rng, 0)
			name := path.Join("backups/b", file)
			flip(t, state, name, rng)
			faults := 0
			if _, err := VerifyBackup(t.Context(), state, "backups/b", func(string, error) { faults++ }); err == nil && faults == 0 {
				t.Fatalf("%s: not found by verify", name)
			}
			var damage *model.CorruptionError
			if _, err := Restore(t.Context(), state, "backups/b", "restored"); !errors.As(err, &damage) {
				t.Fatalf("%s: restored: %v", name, err)
			}
			if names, err := state.List("restored"); err == nil && !slices.Equal(names, []string{"LOCK"}) {
				t.Fatalf("%s: left %v", name, names)
			}
		}
	}
}

// FuzzBackupManifest: whatever the file holds, its decoder gives an error or what it
// encodes again.
func FuzzBackupManifest(f *testing.F) {
	for _, x := range []*Backup{
		{Shards: 1, Indexes: []uint64{7}},
		{Name: "b", Shards: 2, Indexes: []uint64{1, 2}, Files: nil},
	} {
		b, err := encodeBackup(x)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[backupHead:])
	}
	f.Add([]byte(`{"shards":1,"indexes":[1],"files":[{"path":"FORMAT","size":1,"crc":1},{"path":"META"}]}`))
	f.Add([]byte(`{"shards":1,"indexes":[1],"files":[{"path":"FORMAT"},{"path":"META"},{"path":"../x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		b, err := decodeBackup("x", sealed(body))
		if err != nil {
			return
		}
		for _, x := range b.Files {
			if !filepath.IsLocal(x.Path) {
				t.Fatalf("a file outside of the folder: %q", x.Path)
			}
		}
		again, err := encodeBackup(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeBackup("x", again); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBackupBrokenOff: a backup whose client goes away in the midst of a flush leaves nothing
// behind, and the engine goes on.
func TestBackupBrokenOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	o := Options{Retention: -1, Shards: 1, OnFailure: func(err error) { failed <- err }}
	o.Failpoint = func(name string) {
		if name == "flush-start" {
			cancel()
		}
	}
	f := newFixture(t, o)
	f.append(floats(labels.FromStrings("__name__", "m"), []int64{start.UnixMilli()}, []float64{1}))
	dir := t.TempDir()
	if _, err := f.Backup(ctx, "b", &BackupOptions{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Fatalf("the backup: %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 || names[0].Name() != backupsLock {
		t.Errorf("left behind: %v, %v", names, err)
	}
	f.append(floats(labels.FromStrings("__name__", "m"), []int64{start.UnixMilli() + 1}, []float64{2}))
	f.flush()
	if _, err := f.Backup(t.Context(), "b", &BackupOptions{Dir: dir}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-failed:
		t.Errorf("the engine has failed: %v", err)
	default:
	}
}

// TestBackupsIntoOneFolder: of two engines that make backups into the same folder at once, one
// is told to wait, and takes nothing of the other's for what a crash has left.
func TestBackupsIntoOneFolder(t *testing.T) {
	mem := vfs.NewMem()
	open := func(dir string) *DB {
		db, err := Open(dir, memOptions(mem))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		appendPairs(t, db, 10, start.UnixMilli(), 4)
		return db
	}
	one, other := open("one"), open("other")
	begun := 0
	meanwhile := func(context.Context) error {
		begun++
		for _, name := range []string{"b", "c"} {
			if _, err := other.Backup(t.Context(), name, &BackupOptions{Dir: "backups"}); !errors.Is(err, ErrBackupRuns) {
				t.Errorf("a second backup into the folder: %v", err)
			}
		}
		return nil
	}
	holds := func(int) error { return meanwhile(t.Context()) }
	if _, err := one.Backup(t.Context(), "b", &BackupOptions{Dir: "backups", Sync: meanwhile, Holds: holds}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Backup(t.Context(), "c", &BackupOptions{Dir: "backups"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c"} {
		if _, err := Restore(t.Context(), mem, "backups/"+name, "restored-"+name); err != nil {
			t.Errorf("backup %s: %v", name, err)
		}
	}
	if begun < 2 {
		t.Error("the test says nothing")
	}
}
