package engine_test

import (
	"context"
	"fmt"
	"log"
	"math"
	"os"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// Open a folder, store two samples of a series durably, and read them back.
func Example() {
	dir, err := os.MkdirTemp("", "strandline")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := engine.Open(dir, &engine.Options{Retention: -1}) // keep samples for ever
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ls := labels.FromStrings("__name__", "temperature", "room", "attic")
	ctx := context.Background()
	res, err := db.Append(ctx, &model.Batch{
		Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls), From: 0, To: 2}},
		T:      []int64{1_700_000_000_000, 1_700_000_015_000},
		V:      []float64{21.5, 21.7},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored", res.Samples)

	sel, err := db.Select(ctx, &model.SelectRequest{
		MinT: math.MinInt64, MaxT: math.MaxInt64,
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "room", "attic")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer sel.Close()
	for _, s := range sel.Series {
		var c model.Columns
		if err := s.Read(&c); err != nil {
			log.Fatal(err)
		}
		fmt.Println(s.Labels(), c.T, c.V)
	}
	// Output:
	// stored 2
	// {__name__="temperature", room="attic"} [1700000000000 1700000015000] [21.5 21.7]
}

// One series with bad labels does not hold back the rest of its batch.
func ExampleDB_Append() {
	dir, err := os.MkdirTemp("", "strandline")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := engine.Open(dir, &engine.Options{Retention: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	good := model.AppendKey(nil, labels.FromStrings("__name__", "up"))
	twice := model.AppendKeyLabel(model.AppendKeyLabel(nil, "a", "1"), "a", "2")
	res, err := db.Append(context.Background(), &model.Batch{
		Series: []model.BatchSeries{{Key: twice, From: 0, To: 1}, {Key: good, From: 1, To: 2}},
		T:      []int64{1000, 1000},
		V:      []float64{1, 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored", res.Samples)
	for _, r := range res.Rejected {
		fmt.Println("series", r.Series, r.Err)
	}
	// Output:
	// stored 1
	// series 0 bad labels: label "a" is repeated or out of order
}

// Subscribe to a selector, and be told of what is stored from then on.
func ExampleDB_Subscribe() {
	dir, err := os.MkdirTemp("", "strandline")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := engine.Open(dir, &engine.Options{Retention: -1})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := context.Background()
	feed, err := db.Subscribe(ctx, &model.FeedRequest{
		Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "temperature")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer feed.Close()

	ls := labels.FromStrings("__name__", "temperature", "room", "attic")
	if _, err := db.Append(ctx, &model.Batch{
		Series: []model.BatchSeries{{Key: model.AppendKey(nil, ls), From: 0, To: 2}},
		T:      []int64{1_700_000_000_000, 1_700_000_015_000},
		V:      []float64{21.5, 21.7},
	}); err != nil {
		log.Fatal(err)
	}

	var batch model.FeedBatch
	names := map[uint32]labels.Labels{} // a series is told once, under a number
	if err := feed.Next(ctx, &batch); err != nil {
		log.Fatal(err)
	}
	for _, s := range batch.Series {
		names[s.ID] = s.Labels
	}
	for _, s := range batch.Samples {
		fmt.Println(names[s.Series], s.T, s.V)
	}
	// Output:
	// {__name__="temperature", room="attic"} 1700000000000 21.5
	// {__name__="temperature", room="attic"} 1700000015000 21.7
}
