package engine

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// appendPairs writes samples of series as two senders have them, at times from on.
func appendPairs(t *testing.T, db *DB, series int, from int64, n int) {
	t.Helper()
	b := &model.Batch{}
	for s := range series {
		for _, sender := range []string{"a", "b"} {
			bs := model.BatchSeries{From: len(b.T), Key: model.AppendKey(nil, labels.FromStrings("__name__", "m", "__replica__", sender, "s", fmt.Sprint(s)))}
			for i := range int64(n) {
				b.T, b.V = append(b.T, from+i*15_000), append(b.V, float64(i))
			}
			bs.To = len(b.T)
			b.Series = append(b.Series, bs)
		}
	}
	res, err := db.Append(context.Background(), b)
	if err != nil || res.Samples != len(b.T) {
		t.Fatalf("%d of %d samples: %v", res.Samples, len(b.T), err)
	}
}

// shardsOf returns where each series lies, by its labels without the senders' one.
func shardsOf(t *testing.T, db *DB) map[string]map[int]bool {
	t.Helper()
	out := map[string]map[int]bool{}
	for i, s := range db.shards {
		sel, err := s.Select(context.Background(), &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range sel.Series {
			key := labels.NewBuilder(x.Labels()).Del("__replica__").Labels().String()
			if out[key] == nil {
				out[key] = map[int]bool{}
			}
			out[key][i] = true
		}
		if err := sel.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestPairInOneShard: the series of a pair of senders lie together in a folder that was
// made for it, whatever is set later, and in one restored from its backup; in a folder
// made before, every series stays where it is.
func TestPairInOneShard(t *testing.T) {
	f := newFixture(t, Options{Shards: 8, PairLabel: "__replica__"})
	appendPairs(t, f.DB, 50, start.UnixMilli(), 4)
	f.close()
	f.opts.PairLabel = "other"
	f.open()
	appendPairs(t, f.DB, 100, start.UnixMilli(), 4)
	together := func(db *DB) {
		t.Helper()
		used := map[int]bool{}
		for key, in := range shardsOf(t, db) {
			if len(in) != 1 {
				t.Errorf("%s lies in the shards %v", key, in)
			}
			for i := range in {
				used[i] = true
			}
		}
		if len(used) != 8 {
			t.Errorf("only the shards %v are used", used)
		}
	}
	together(f.DB)

	dir := t.TempDir()
	if _, err := f.Backup(context.Background(), "b", &BackupOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	restored := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(context.Background(), vfs.OS{}, filepath.Join(dir, "b"), restored); err != nil {
		t.Fatal(err)
	}
	db, err := Open(restored, &Options{Retention: -1})
	if err != nil {
		t.Fatal(err)
	}
	appendPairs(t, db, 120, start.UnixMilli(), 4)
	together(db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPairLabelOfOldFolder: a folder that was made without the label goes on without it.
func TestPairLabelOfOldFolder(t *testing.T) {
	f := newFixture(t, Options{Shards: 8})
	appendPairs(t, f.DB, 50, start.UnixMilli(), 4)
	before := shardsOf(t, f.DB)
	f.close()
	f.opts.PairLabel = "__replica__"
	f.open()
	appendPairs(t, f.DB, 50, start.UnixMilli()+60_000, 4)
	apart := 0
	for key, in := range shardsOf(t, f.DB) {
		if len(in) != len(before[key]) {
			t.Errorf("%s lay in %v, now in %v", key, before[key], in)
		}
		if len(in) > 1 {
			apart++
		}
	}
	if apart == 0 {
		t.Error("the test says nothing")
	}
}

// TestDamagedFormat: whatever is wrong with the file, the error says what to do.
func TestDamagedFormat(t *testing.T) {
	for _, raw := range []string{"", "{", `{"version":1,"shards":8,"hashVersion":1`, `{"version":3,"shards":8,"hashVersion":1}`, `{"wersion":1,"shards":8,"hashVersion":1}`,
		`{"version":1,"sjards":8,"hashVersion":1}`, `{"version":1,"shards":"8","hashVersion":1}`, `{"version":1,"shards":8,"hashVersion":9}`,
		strings.Replace(string(vfs.Seal([]byte(`{"version":1,"shards":8,"hashVersion":1}`))), "8", "9", 1)} {
		dir := t.TempDir()
		name := filepath.Join(dir, formatName)
		if err := os.WriteFile(name, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "bring it back from a backup") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", raw, err)
		}
	}
}

// TestUnknownPlacement: a folder whose placement does not go with its hash version is refused.
func TestUnknownPlacement(t *testing.T) {
	for _, raw := range []string{
		`{"version":1,"shards":2,"hashVersion":1,"pairLabel":"r"}`,
		`{"version":1,"shards":2,"hashVersion":2}`,
		`{"version":1,"shards":2,"hashVersion":3,"pairLabel":"r"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, formatName), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "hash version") {
			t.Errorf("%s: %v", raw, err)
		}
	}
}
