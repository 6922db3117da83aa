package query_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	storageengine "github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// suiteOptions turn on what upstream's suite expects of an engine.
func suiteOptions() *query.Options {
	return &query.Options{
		MaxSamples: promqltest.DefaultMaxSamplesPerQuery, Timeout: 100 * time.Second,
		ExperimentalFunctions: true, BinopFillModifiers: true, UnquotedUTF8Names: true,
		DelayedNameRemoval: true, StartTimestamps: true,
	}
}

// TestBuiltin runs upstream's acceptance suite whole; nothing is skipped.
func TestBuiltin(t *testing.T) {
	e, err := query.New(querytest.New(), suiteOptions())
	if err != nil {
		t.Fatal(err)
	}
	promqltest.RunBuiltinTestsWithStorage(t, e.Upstream(), func(testing.TB) storage.Storage {
		s := querytest.New()
		return &querytest.Storage{Queryable: query.NewQueryable(s, nil), W: s}
	})
}

// flushing is an engine that moves every batch on into blocks, so that the suite
// reads from them and not from memory alone.
type flushing struct {
	*storageengine.DB
	n int
}

// Append implements querytest.ReadWriter. Every second batch stays in the head.
func (f *flushing) Append(ctx context.Context, b *model.Batch) (model.AppendResult, error) {
	res, err := f.DB.Append(ctx, b)
	if f.n++; err != nil || f.n%2 == 0 {
		return res, err
	}
	return res, f.Flush(ctx)
}

// TestBuiltinOnEngine runs upstream's suite whole over the real storage, from memory
// and from blocks; nothing is skipped.
func TestBuiltinOnEngine(t *testing.T) {
	for _, blocks := range []bool{false, true} {
		name := map[bool]string{false: "head", true: "blocks"}[blocks]
		t.Run(name, func(t *testing.T) {
			e, err := query.New(querytest.New(), suiteOptions())
			if err != nil {
				t.Fatal(err)
			}
			promqltest.RunBuiltinTestsWithStorage(t, e.Upstream(), func(tb testing.TB) storage.Storage {
				// The suite's time is 1970: nothing may be too old.
				db, err := storageengine.Open("data", &storageengine.Options{FS: vfs.NewMem(), Shards: 2, Retention: -1, MinFreeBytes: -1})
				if err != nil {
					tb.Fatal(err)
				}
				var w querytest.ReadWriter = db
				if blocks {
					w = &flushing{DB: db}
				}
				return &querytest.Storage{Queryable: query.NewQueryable(db, nil), W: w, OnClose: db.Close}
			})
		})
	}
}
