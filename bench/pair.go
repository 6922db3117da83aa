package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/strandline-db/strandline/bench/workload"
	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

const replicaLabel = "__replica__"

// pairBench stores what one sender, and what a pair of senders, has of the same targets, and
// tells what it takes on disk while it is young and once it is merged into warm blocks:
// with both senders kept, and with one clean series chosen.
func pairBench(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("pair", flag.ContinueOnError)
	count := fs.Int("series", 1000, "series of each sender")
	scrapes := fs.Int("scrapes", 5760, "samples a series of each sender, one each 15 s")
	work := fs.String("work", os.TempDir(), "folder for bodies and data")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*work, "strandline-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bodies := filepath.Join(dir, "bodies")
	o := workload.FleetOptions{Series: *count, Scrapes: *scrapes * 2, Senders: 2, Lanes: 1, Interval: 15 * time.Second / 2, End: time.Now().Truncate(15 * time.Second)}
	if _, err := workload.Fleet(bodies, o); err != nil {
		return err
	}
	clean := float64(*count) * float64(*scrapes)
	fmt.Printf("%d series, %d samples of each sender. Bytes on disk a clean sample:\n\n| | young, hot blocks | merged into warm blocks | merge took |\n|---|---|---|---|\n", *count, int64(clean))
	for _, c := range []struct {
		what    string
		without string // a sender
		label   string
	}{{"one sender alone", "r1", ""}, {"two senders, both kept", "", ""}, {"two senders, one series chosen", "", replicaLabel}} {
		hot, warm, took, err := storePair(ctx, filepath.Join(dir, c.what), bodies, c.without, c.label, o.End)
		if err != nil {
			return err
		}
		fmt.Printf("| %s | %.2f | %.2f | %.1f s |\n", c.what, float64(hot)/clean, float64(warm)/clean, took.Seconds())
	}
	return nil
}

// storePair returns the bytes of all blocks before and after the time in which they turn warm.
func storePair(ctx context.Context, dir, bodies, without, label string, end time.Time) (hot, warm int64, took time.Duration, err error) {
	c := clock.NewManual(end)
	db, err := engine.Open(dir, &engine.Options{PairLabel: label, Clock: c, Retention: -1})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := appendBodies(ctx, db, bodies, without); err != nil {
		return 0, 0, 0, err
	}
	if err := db.Flush(ctx); err != nil {
		return 0, 0, 0, err
	}
	hot = blockBytes(db)
	c.Advance(15 * 24 * time.Hour)
	start := time.Now()
	if label != "" {
		// The choice itself; a flush then tells the manifests of it, as one does every two hours.
		if err := errors.Join(db.Maintain(ctx), db.Flush(ctx)); err != nil {
			return 0, 0, 0, err
		}
	}
	err = db.Maintain(ctx)
	return hot, blockBytes(db), time.Since(start), err
}

func blockBytes(db *engine.DB) (n int64) {
	for _, b := range db.Stats().BlockBytes {
		n += b
	}
	return n
}

// appendBodies appends all requests of a file of bodies but those of one sender.
func appendBodies(ctx context.Context, db *engine.DB, path, without string) (err error) {
	f, err := workload.Open(path, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var comp, raw []byte
	var b model.Batch
	for _, body := range f.Lane(0) {
		if comp, err = f.Read(body, comp[:0]); err != nil {
			return err
		}
		if raw, err = snappy.Decode(raw[:cap(raw)], comp); err != nil {
			return err
		}
		var req prompb.WriteRequest
		if err := req.Unmarshal(raw); err != nil {
			return err
		}
		b = model.Batch{}
		for _, ts := range req.Timeseries {
			s := model.BatchSeries{From: len(b.T)}
			for _, l := range ts.Labels {
				s.Key = model.AppendKeyLabel(s.Key, l.Name, l.Value)
			}
			if string(model.KeyValue(s.Key, replicaLabel)) == without {
				continue
			}
			for _, x := range ts.Samples {
				b.T, b.V = append(b.T, x.Timestamp), append(b.V, x.Value)
			}
			s.To = len(b.T)
			b.Series = append(b.Series, s)
		}
		if _, err := db.Append(ctx, &b); err != nil {
			return err
		}
	}
	return nil
}
