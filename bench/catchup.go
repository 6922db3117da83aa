package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/bench/peers"
	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/shard/model"
)

// catchUpSeries hold the blocks that a node catches up on. Their values do not compress, so
// that a sample takes 8 bytes: what is measured is bytes, and fewer samples make them.
const (
	catchUpSeries = 480
	noiseBytes    = 8
)

// catchUp makes the folder of a single node with blocks of o.catchUpBytes, starts it as the
// first of three nodes, and measures the third: once as a new node, beside the second, and
// then, which is what counts, once more after its folder was lost.
func catchUp(ctx context.Context, o *clusterOptions, path, dir string) error {
	c, err := prepareTrio(o, path, dir, o.shards)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := fillWithNoise(ctx, filepath.Join(dir, nodeName(0), "data"), o); err != nil {
		return err
	}
	fmt.Printf("catching up: made blocks of %d MB in %.1f s\n", o.catchUpBytes/1e6, time.Since(began).Seconds())
	if err := c.start(ctx); err != nil {
		return err
	}
	return errors.Join(c.measureCatchUp(ctx), c.kill())
}

func (c *trio) measureCatchUp(ctx context.Context) error {
	idle, err := c.nodes[2].PeakRSS()
	if err != nil {
		return err
	}
	fmt.Printf("two new nodes have caught up; the peak of the third's resident memory was %.1f MiB\n", mib(idle))
	if err := c.nodes[2].Kill(); err != nil {
		return err
	}
	data := filepath.Join(c.dir, nodeName(2), "data")
	if err := os.RemoveAll(data); err != nil {
		return err
	}
	floor, err := writeFloor(c.dir, c.o.catchUpBytes)
	if err != nil {
		return err
	}
	before, err := c.serverCPU(2)
	if err != nil {
		return err
	}
	if c.nodes[2], err = peers.Start(ctx, c.spec(2), filepath.Join(c.dir, nodeName(2))); err != nil {
		return err
	}
	took := c.nodes[2].Startup
	peak, err1 := c.nodes[2].PeakRSS()
	got, err2 := counter(ctx, c.nodes[2].Base, "strandline_cluster_fetched_bytes_total")
	own, err3 := c.nodes[2].CPU()
	after, err4 := c.serverCPU(2)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return err
	}
	fmt.Printf("catching up after a lost folder: %.0f MB in %.2f s from the start of the process until it is ready, %.0f MB/s (reach 100 MB/s); CPU %.2f s here, %.2f s at the sources\n",
		got/1e6, took.Seconds(), got/1e6/took.Seconds(), own.Seconds(), (after - before).Seconds())
	fmt.Printf("  the disk: %.0f MB written in sequence and synced at %.0f MB/s\n", float64(c.o.catchUpBytes)/1e6, floor)
	fmt.Printf("  resident memory of the process at its peak: %.1f MiB (reach: 64 MiB)\n", mib(peak))
	return nil
}

// serverCPU is that of all nodes but one.
func (c *trio) serverCPU(but int) (total time.Duration, err error) {
	for i, p := range c.nodes {
		if i == but {
			continue
		}
		d, err := p.CPU()
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// writeFloor returns how fast the disk takes size bytes in sequence, synced at the end, in MB/s.
func writeFloor(dir string, size int64) (_ float64, err error) {
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(rand.Uint32())
	}
	began := time.Now()
	for done := int64(0); done < size; done += int64(len(buf)) {
		if _, err := f.Write(buf); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	return float64(size) / 1e6 / time.Since(began).Seconds(), nil
}

// fillWithNoise makes a single node's folder with some bytes of blocks.
func fillWithNoise(ctx context.Context, dir string, o *clusterOptions) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	db, err := engine.Open(dir, &engine.Options{Shards: o.shards, HeadBytes: 128 << 20})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()); runtime.GC() }()
	keys := make([][]byte, catchUpSeries)
	for s := range keys {
		keys[s] = model.AppendKey(nil, labels.FromStrings("__name__", "noise", "s", fmt.Sprint(s)))
	}
	const each = 500 // samples of a series in a batch
	rng := rand.New(rand.NewPCG(1, 1))
	total := o.catchUpBytes / noiseBytes / catchUpSeries
	first := time.Now().Add(-time.Duration(total) * time.Second).UnixMilli()
	b := &model.Batch{}
	for at := int64(0); at < total; at += each {
		b.Series, b.T, b.V = b.Series[:0], b.T[:0], b.V[:0]
		for s := range keys {
			from := len(b.T)
			for i := range int64(each) {
				b.T, b.V = append(b.T, first+(at+i)*1000), append(b.V, math.Float64frombits(rng.Uint64()>>2))
			}
			b.Series = append(b.Series, model.BatchSeries{Key: keys[s], From: from, To: len(b.T)})
		}
		if _, err := db.Append(ctx, b); err != nil {
			return err
		}
	}
	return errors.Join(db.Flush(ctx), db.Maintain(ctx))
}
