package engine

import (
	"context"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/shard/model/pair"
	"github.com/strandline-db/strandline/wal/vfs"
)

const week = 7 * 24 * time.Hour

// stored returns what there is of all series of a sender, in samples.
func stored(t *testing.T, r model.Reader, sender string) (n int) {
	t.Helper()
	sel, err := model.Select(context.Background(), r, &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__replica__", sender)}})
	if err != nil {
		t.Fatal(err)
	}
	defer sel.Close()
	for _, s := range sel.Series {
		var c model.Columns
		if err := s.Read(&c); err != nil {
			t.Fatal(err)
		}
		n += len(c.T)
	}
	return n
}

// TestChoice: once what a pair of senders brought is old enough to turn warm, one clean
// series of it is left, by a log entry at once and on disk after the merges; what is
// younger, comes later, or comes without the setting stays.
func TestChoice(t *testing.T) {
	f := newFixture(t, Options{PairLabel: "__replica__", Retention: -1})
	ctx := context.Background()
	const series, n = 20, 4000 // some 17 hours
	upkeep := func() {
		t.Helper()
		for range 2 {
			if err := f.Maintain(ctx); err != nil {
				t.Fatal(err)
			}
			if err := f.Flush(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(a, b int) {
		t.Helper()
		if x, y := stored(t, f, "a"), stored(t, f, "b"); x != a || y != b {
			t.Fatalf("the senders have %d and %d samples, want %d and %d", x, y, a, b)
		}
	}
	bytes := func() int64 { s := f.Stats(); return s.BlockBytes[0] + s.BlockBytes[1] + s.BlockBytes[2] }
	appendPairs(t, f.DB, series, start.UnixMilli(), n)
	upkeep()
	want(series*n, series*n)
	both := bytes()
	f.clock.Advance(3 * week)
	appendPairs(t, f.DB, series, f.clock.Now().UnixMilli(), 10)
	if err := f.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	want(series*(n+10), series*10)
	upkeep()
	want(series*(n+10), series*10)
	if got := f.Stats().Unchosen; got != int64(series*n) {
		t.Errorf("merges dropped %d samples, want %d", got, series*n)
	}
	if now := bytes(); now > both*6/10 {
		t.Errorf("%d bytes before the merges, %d after", both, now)
	}

	// A sender that comes back late is there, and the next choice looks at it again.
	late := start.UnixMilli() + 2000*15_000
	appendPairs(t, f.DB, series, late, 100)
	want(series*(n+10), series*110)
	upkeep()
	want(series*(n+10), series*110)
	f.clock.Advance(week)
	upkeep()
	want(series*(n+10), series*10)

	dir := t.TempDir()
	if _, err := f.Backup(ctx, "b", &BackupOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	restored := filepath.Join(t.TempDir(), "data")
	if _, err := Restore(ctx, vfs.OS{}, filepath.Join(dir, "b"), restored); err != nil {
		t.Fatal(err)
	}
	db, err := Open(restored, &Options{Retention: -1, PairLabel: "__replica__", Clock: f.clock})
	if err != nil {
		t.Fatal(err)
	}
	if x, y := stored(t, db, "a"), stored(t, db, "b"); x != series*(n+10) || y != series*10 {
		t.Errorf("restored, the senders have %d and %d samples", x, y)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	f.close()
	f.opts.PairLabel = "" // nothing is chosen any more, and what was dropped stays so
	f.open()
	f.clock.Advance(3 * week)
	upkeep()
	want(series*(n+10), series*10)
}

// TestChoiceAndRetentionBySize: whole buckets of time go, so that all replicas choose alike.
func TestChoiceAndRetentionBySize(t *testing.T) {
	f := newFixture(t, Options{PairLabel: "__replica__", Retention: -1, RetentionBytes: 1})
	appendPairs(t, f.DB, 10, start.UnixMilli(), 100)
	if err := f.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := f.Maintain(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, s := range f.shards {
		if cut := s.Stats().Cut; len(s.Blocks()) > 0 || cut%pair.Bucket != 0 {
			t.Errorf("shard %d: the cut is at %d and %d blocks are left", i, cut, len(s.Blocks()))
		}
	}
}
