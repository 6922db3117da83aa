package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/strandline-db/strandline/bench/load"
	"github.com/strandline-db/strandline/bench/peers"
	"github.com/strandline-db/strandline/bench/workload"
)

// replay fills a strandline that does not flush, kills it, and measures the start that replays its log.
func replay(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("replay", flag.ContinueOnError)
	scrapes := fs.Int("scrapes", 200, "samples a series")
	count := fs.Int("series", 100_000, "series")
	binary := fs.String("strandline", "bin/strandline", "path of the program")
	serveArgs := fs.String("serve-args", "", "more arguments for strandline serve, such as those that put flushing off")
	work := fs.String("work", os.TempDir(), "folder for bodies and data")
	if err := fs.Parse(args); err != nil {
		return err
	}
	path, err := peers.Find(*binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(*work, "strandline-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bodies := filepath.Join(dir, "bodies")
	info, err := workload.Fleet(bodies, workload.FleetOptions{Series: *count, Scrapes: *scrapes, Lanes: lanes,
		End: time.Now().Add(-time.Minute).Truncate(10 * time.Second)})
	if err != nil {
		return err
	}
	spec := peers.Strandline(path, strings.Fields(*serveArgs)...)
	running, err := fillAndKill(ctx, spec, dir, bodies)
	if err != nil {
		return err
	}
	p, err := peers.Start(ctx, spec, dir)
	if err != nil {
		return err
	}
	// The memory sampler ticks at 10 Hz; let it see the end of the replay.
	time.Sleep(300 * time.Millisecond)
	peak := p.PeakAnon()
	seen, err := visible(ctx, p, info)
	if err = errors.Join(err, p.Kill()); err != nil {
		return err
	}
	fmt.Printf("samples %d, seen after restart %d\nready after %.3f s (reach: 2 s)\npeak anonymous memory: running %.1f MiB, replaying %.1f MiB (%.2f)\n",
		info.Samples, seen, p.Startup.Seconds(), float64(running)/(1<<20), float64(peak)/(1<<20), float64(peak)/float64(running))
	return nil
}

// fillAndKill returns the peak of anonymous memory while the server took the workload.
func fillAndKill(ctx context.Context, spec peers.Spec, dir, bodies string) (int64, error) {
	f, err := workload.Open(bodies, lanes)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	p, err := peers.Start(ctx, spec, dir)
	if err != nil {
		return 0, err
	}
	_, err = load.Send(ctx, p.Base, f, lanes)
	peak := p.PeakAnon()
	return peak, errors.Join(err, p.Kill())
}
