package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/strandline-db/strandline/bench/load"
	"github.com/strandline-db/strandline/bench/workload"
)

const (
	lightWrites = 500
	lightSeries = 100 // enough to lie in all shards
	lightPause  = 20 * time.Millisecond
)

// small is a body with a sample of now for each of some series; another seed is another value.
// One series is another one with each seed.
func small(seed uint64, series int) ([]byte, error) {
	f, err := os.CreateTemp("", "strandline-bench-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return nil, err
	}
	if _, err := workload.Fleet(f.Name(), workload.FleetOptions{Series: lightSeries, PerRequest: series,
		Scrapes: 1, Lanes: 1, Seed: seed, End: time.Now()}); err != nil {
		return nil, err
	}
	w, err := workload.Open(f.Name(), 1)
	if err != nil {
		return nil, err
	}
	lane := w.Lane(0)
	b, err := w.Read(lane[seed%uint64(len(lane))], nil)
	if err != nil {
		return nil, err
	}
	return b, w.Close()
}

// light is what writes take that come now and then, each with a bare fdatasync beside it.
type light struct{ writes, syncs []time.Duration }

func (l *light) String() string {
	slices.Sort(l.writes)
	slices.Sort(l.syncs)
	n := len(l.writes)
	w, s := l.writes[n/2], l.syncs[n/2]
	return fmt.Sprintf("p50 %v, p99 %v; fdatasync p50 %v: %.1f times", w, l.writes[n*99/100], s, float64(w)/float64(s))
}

// lightly sends writes of so many series to base; the file for the fdatasync lies in dir.
func lightly(ctx context.Context, base, dir string, series int) (*light, error) {
	f, err := os.Create(filepath.Join(dir, "fdatasync"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	client := &http.Client{}
	buf := make([]byte, 512)
	l := &light{}
	for i := range lightWrites {
		body, err := small(uint64(i+1), series)
		if err != nil {
			return nil, err
		}
		time.Sleep(lightPause)
		begin := time.Now()
		if status, err := load.Post(ctx, client, base, body); err != nil || status/100 != 2 {
			return nil, fmt.Errorf("write answered %d: %w", status, err)
		}
		l.writes = append(l.writes, time.Since(begin))
		begin = time.Now()
		if _, err := f.WriteAt(buf, int64(i*len(buf))); err != nil {
			return nil, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		l.syncs = append(l.syncs, time.Since(begin))
	}
	return l, nil
}

// latency compares writes at light load with a bare fdatasync: of series in all shards, and
// of one series, with a shard of its own; and with them the least that three nodes can do.
func (c *trio) latency(ctx context.Context) error {
	before, err := c.counter(ctx, "strandline_log_fsyncs_total")
	if err != nil {
		return err
	}
	all, err := lightly(ctx, c.nodes[0].Base, c.dir, lightSeries)
	if err != nil {
		return err
	}
	after, err := c.counter(ctx, "strandline_log_fsyncs_total")
	if err != nil {
		return err
	}
	fmt.Printf("light write to all shards %v (reach 8); %.1f fsyncs a write\n", all, (after-before)/lightWrites)
	one, err := lightly(ctx, c.nodes[0].Base, c.dir, 1)
	if err != nil {
		return err
	}
	fmt.Printf("light write to one shard %v (reach 8)\n", one)
	return hopsFloor(ctx, c.dir)
}
