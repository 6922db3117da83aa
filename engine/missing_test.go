package engine

import (
	"errors"
	"io/fs"
	"path"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestMissingFiles: a folder from which the file is gone that says what belongs to it does
// not open, nothing of it is taken for a leftover, and it is whole once the file is back.
func TestMissingFiles(t *testing.T) {
	mem := vfs.NewMem()
	db, err := Open("data", memOptions(mem))
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger()
	for i := range 10 { // in both shards
		b := floats(labels.FromStrings("__name__", "m", "i", strconv.Itoa(i)), []int64{start.UnixMilli()}, []float64{1})
		note(l.sent, b)
		note(l.acked, b)
		if _, err := db.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(db.Flush(t.Context()), db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data/FORMAT", path.Join("data", shardPath(0), "MANIFEST"), path.Join("data", shardPath(1), "MANIFEST")} {
		if err := mem.Rename(name, "aside"); err != nil {
			t.Fatal(err)
		}
		db, err := Open("data", memOptions(mem))
		var damage *model.CorruptionError
		switch {
		case err == nil:
			t.Errorf("the folder opens without %s", name)
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		case !errors.As(err, &damage) && !errors.Is(err, fs.ErrNotExist):
			t.Errorf("without %s: %v", name, err)
		}
		if err := mem.Rename("aside", name); err != nil {
			t.Fatal(err)
		}
		if err := judgeFolder(mem, l); err != nil {
			t.Errorf("with %s back: %v", name, err)
		}
	}
}
