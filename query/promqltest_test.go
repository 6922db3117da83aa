package query_test

import (
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
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
