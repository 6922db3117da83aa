package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/peers"
)

// liveOptions are the flags of the live measurements.
type liveOptions struct {
	binary, work, only, serveArgs, save string
	series                              int
	interval, length, warm, showLength  time.Duration
	conns, fanout, subscribers, rounds  int
	queries                             int
	rate                                float64

	path, dir string
	rows      []finding
}

// finding is one line of the result.
type finding struct {
	what, shown, reach string
	ok                 bool
}

func (o *liveOptions) report(ok bool, what, reach, format string, args ...any) {
	m := finding{what, fmt.Sprintf(format, args...), reach, ok}
	o.rows = append(o.rows, m)
	verdict := "reached"
	if !ok {
		verdict = "MISSED"
	}
	fmt.Printf("%s: %s (reach %s): %s\n", m.what, m.shown, m.reach, verdict)
}

// figures is how many of the measurements, the first ones, make up the table of results. The
// others show that nothing is lost and nothing is left.
const figures = 4

// liveRuns are the measurements by name, in their order.
func liveRuns() []struct {
	name string
	run  func(context.Context, *liveOptions) error
} {
	return []struct {
		name string
		run  func(context.Context, *liveOptions) error
	}{
		{"latency", latencyRun},
		{"fanout", fanoutRun},
		{"cpu", cpuRun},
		{"realtime", realtimeRun},
		{"show", showRun},
		{"churn", churnRun},
	}
}

func liveBench(ctx context.Context, args []string) (err error) {
	var o liveOptions
	var names []string
	for _, r := range liveRuns() {
		names = append(names, r.name)
	}
	fs := flag.NewFlagSet("live", flag.ContinueOnError)
	fs.StringVar(&o.binary, "strandline", "bin/strandline", "path of the program")
	fs.StringVar(&o.work, "work", os.TempDir(), "folder for bodies and data")
	fs.StringVar(&o.only, "only", strings.Join(names[:figures], ","), "measurements to make; besides the default "+strings.Join(names[figures:], " and "))
	fs.StringVar(&o.serveArgs, "serve-args", "", "more arguments for strandline serve, divided by spaces")
	fs.StringVar(&o.save, "save", "", "file to write the table of results to")
	fs.IntVar(&o.series, "series", 10_000, "series of the stream")
	fs.DurationVar(&o.interval, "interval", 100*time.Millisecond, "time between the samples of a series")
	fs.DurationVar(&o.length, "length", 20*time.Second, "how long the stream lasts")
	fs.DurationVar(&o.showLength, "show-length", time.Minute, "how long the stream of show lasts")
	fs.DurationVar(&o.warm, "warm", 3*time.Second, "how much of it goes before a measurement")
	fs.IntVar(&o.conns, "conns", 50, "connections that ask the realtime endpoint")
	fs.Float64Var(&o.rate, "rate", 6000, "requests a second that they make together")
	fs.IntVar(&o.fanout, "fanout", 10_000, "connections on one query")
	fs.IntVar(&o.subscribers, "subscribers", 1000, "subscribers in the other measurements")
	fs.IntVar(&o.rounds, "rounds", 2, "how often cpu measures with and without subscribers")
	fs.IntVar(&o.queries, "queries", 100, "distinct queries that they share")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.path, err = peers.Find(o.binary); err != nil {
		return err
	}
	if o.dir, err = os.MkdirTemp(o.work, "strandline-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	wanted := strings.Split(o.only, ",")
	if o.rounds < 1 {
		return fmt.Errorf("rounds must be positive, got %d", o.rounds)
	}
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("no measurement %q: want some of %s", w, strings.Join(names, ", "))
		}
	}
	for _, r := range liveRuns() {
		if slices.Contains(wanted, r.name) {
			if err := r.run(ctx, &o); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	return o.table(strings.Join(args, " "))
}

// table prints the results in Markdown and keeps them if a file is named.
func (o *liveOptions) table(args string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "`%s`, %d cores for server and load, %s.\n\n", strings.TrimSpace("go run ./bench live "+args), runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly))
	b.WriteString("| measure | shown | reach | |\n|---|---|---|---|\n")
	for _, m := range o.rows {
		verdict := "reached"
		if !m.ok {
			verdict = "missed"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", m.what, m.shown, m.reach, verdict)
	}
	fmt.Print("\n", b.String())
	if o.save == "" {
		return nil
	}
	return os.WriteFile(o.save, []byte(b.String()), 0o644)
}

// serve starts a server of its own for one measurement; done stops it.
func (o *liveOptions) serve(ctx context.Context, name string) (p *peers.Process, done func() error, err error) {
	dir := filepath.Join(o.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	args := append([]string{"--self-scrape-interval", "0", "--max-connections", fmt.Sprint(2*o.fanout + 4096),
		"--live-max-connections", fmt.Sprint(o.fanout + 2048), "--live-max-queries", fmt.Sprint(o.subscribers + 100)}, strings.Fields(o.serveArgs)...)
	if p, err = peers.Start(ctx, peers.Strandline(o.path, args...), dir); err != nil {
		return nil, nil, err
	}
	return p, func() error { return errors.Join(p.Kill(), os.RemoveAll(dir)) }, nil
}

// usage waits for d and tells how the cores were used meanwhile.
func (o *liveOptions) usage(ctx context.Context, p *peers.Process, d time.Duration) (string, error) {
	before, err := live.Used(p)
	if err != nil {
		return "", err
	}
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(d):
	}
	after, err := live.Used(p)
	return after.Since(before), err
}

// stream makes the bodies of a stream; the time that takes is guessed from their number.
func (o *liveOptions) stream(dir string, length time.Duration) (*live.Stream, error) {
	samples := float64(o.series) * float64(length/o.interval)
	return live.NewStream(dir, o.series, o.interval, length, 3*time.Second+time.Duration(samples*600)*time.Nanosecond)
}
