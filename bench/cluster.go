package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/load"
	"github.com/strandline-db/strandline/bench/peers"
	"github.com/strandline-db/strandline/bench/workload"
)

// clusterOptions are the flags of the cluster measurements.
type clusterOptions struct {
	binary, work, serveArgs string
	only                    string
	kills, shards           int
	series, scrapes         int
	senders                 int
	offered                 float64
	idle                    time.Duration
	catchUpBytes            int64
}

// trio is a cluster of three processes.
type trio struct {
	o     *clusterOptions
	dir   string
	path  string
	peers string
	shard int
	nodes [3]*peers.Process
}

func (c *trio) spec(i int) peers.Spec {
	args := []string{"--shards", strconv.Itoa(c.shard), "--self-scrape-interval", "0", "--cluster-node", nodeName(i), "--cluster-peers", c.peers}
	return peers.Strandline(c.path, append(args, strings.Fields(c.o.serveArgs)...)...)
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

// newTrio starts three nodes and waits until all are ready and share the leadership.
func newTrio(ctx context.Context, o *clusterOptions, path, dir string, shards int) (*trio, error) {
	c, err := prepareTrio(o, path, dir, shards)
	if err != nil {
		return nil, err
	}
	return c, c.start(ctx)
}

// prepareTrio chooses addresses and makes folders.
func prepareTrio(o *clusterOptions, path, dir string, shards int) (*trio, error) {
	c := &trio{o: o, dir: dir, path: path, shard: shards}
	var list []string
	for i := range c.nodes {
		addr, err := peers.FreeAddr()
		if err != nil {
			return nil, err
		}
		list = append(list, nodeName(i)+"="+addr)
		if err := os.MkdirAll(filepath.Join(dir, nodeName(i)), 0o755); err != nil {
			return nil, err
		}
	}
	c.peers = strings.Join(list, ",")
	return c, nil
}

func (c *trio) start(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	for i := range c.nodes {
		g.Go(func() (err error) {
			c.nodes[i], err = peers.Start(gctx, c.spec(i), filepath.Join(c.dir, nodeName(i)))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return errors.Join(err, c.kill())
	}
	return c.balanced(ctx)
}

func (c *trio) kill() error {
	var err error
	for _, p := range c.nodes {
		if p != nil {
			err = errors.Join(err, p.Kill())
		}
	}
	return err
}

// balanced waits until each node leads a third of the groups.
func (c *trio) balanced(ctx context.Context) error {
	want := (c.shard + 1) / 3
	for {
		ok := true
		for _, p := range c.nodes {
			n, err := leads(ctx, p.Base)
			ok = ok && err == nil && n >= want
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// leads returns how many groups the node leads.
func leads(ctx context.Context, base string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/cluster/status", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var a struct {
		Data struct{ Groups []struct{ Leads bool } }
	}
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		return 0, err
	}
	n := 0
	for _, g := range a.Data.Groups {
		if g.Leads {
			n++
		}
	}
	return n, nil
}

func (c *trio) cpu() (total time.Duration, err error) {
	for _, p := range c.nodes {
		d, err := p.CPU()
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

// counter sums one counter of /metrics over the nodes.
func (c *trio) counter(ctx context.Context, name string) (total float64, err error) {
	for _, p := range c.nodes {
		v, err := counter(ctx, p.Base, name)
		if err != nil {
			return 0, err
		}
		total += v
	}
	return total, nil
}

func counter(ctx context.Context, base, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("%s has no %s", base, name))
}

func clusterBench(ctx context.Context, args []string) (err error) {
	var o clusterOptions
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	fs.StringVar(&o.binary, "strandline", "bin/strandline", "path of the program")
	fs.StringVar(&o.work, "work", os.TempDir(), "folder for bodies and data")
	fs.StringVar(&o.serveArgs, "serve-args", "", "more arguments for strandline serve, divided by spaces")
	fs.StringVar(&o.only, "only", "", "measure just this: load, or, on many groups, idle, latency, failover, catchup")
	fs.IntVar(&o.kills, "kills", 50, "times that a node is killed")
	fs.IntVar(&o.shards, "shards", 15, "shards; the metadata make one group more")
	fs.IntVar(&o.series, "series", 32_000, "series of the load: 2,000 a sender at least, for all to have some")
	fs.IntVar(&o.scrapes, "scrapes", 80, "samples a series")
	fs.IntVar(&o.senders, "senders", 16, "connections that send, as a Prometheus has with as many remote-write shards")
	fs.Float64Var(&o.offered, "offered", 500_000, "samples a second at which fsyncs are compared")
	fs.DurationVar(&o.idle, "idle", 20*time.Second, "how long to look at an idle cluster")
	fs.Int64Var(&o.catchUpBytes, "catch-up-bytes", 1_000_000_000, "bytes of blocks that a node catches up on")
	if err := fs.Parse(args); err != nil {
		return err
	}
	path, err := peers.Find(o.binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.work, "strandline-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.only == "catchup" {
		return catchUp(ctx, &o, path, dir)
	}
	bodies := filepath.Join(dir, "bodies")
	if _, err := workload.Fleet(bodies, workload.FleetOptions{Series: o.series, Scrapes: o.scrapes, Lanes: o.senders,
		End: time.Now().Add(-time.Minute).Truncate(10 * time.Second)}); err != nil {
		return err
	}
	if o.only != "" && o.only != "load" {
		return onlyOne(ctx, &o, path, dir)
	}
	single, err := singleCPU(ctx, &o, path, filepath.Join(dir, "single"), bodies)
	if err != nil {
		return err
	}
	if err := compareGroups(ctx, &o, path, dir, bodies, single); err != nil || o.only != "" {
		return err
	}
	return catchUp(ctx, &o, path, filepath.Join(dir, "catchup"))
}

// singleCPU is the CPU of one node without a cluster, in seconds a million samples.
func singleCPU(ctx context.Context, o *clusterOptions, path, dir, bodies string) (_ float64, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	p, err := peers.Start(ctx, peers.Strandline(path, "--shards", strconv.Itoa(o.shards), "--self-scrape-interval", "0"), dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Kill()) }() // again, if all goes well
	before, err := p.CPU()
	if err != nil {
		return 0, err
	}
	sent, err := o.send(ctx, p.Base, bodies, 0)
	if err != nil {
		return 0, err
	}
	after, err := p.CPU()
	v := (after - before).Seconds() / (float64(sent.Samples) / 1e6)
	fmt.Printf("single node, %d senders: %.3f CPU s a million samples, %.0f samples/s\n", o.senders, v, float64(sent.Samples)/sent.Wall.Seconds())
	if err != nil {
		return 0, err
	}
	return v, floor(ctx, p, dir, v, float64(sent.Samples)/1e6)
}

// floor says what three nodes must take at least: two of them do what a single node does
// when it starts after a SIGKILL, which is to read the log and apply it, and the third what
// it did before that. The network, and writing the log of two, come on top.
func floor(ctx context.Context, p *peers.Process, dir string, single, millions float64) error {
	if err := p.Kill(); err != nil {
		return err
	}
	again, err := peers.Start(ctx, p.Spec, dir)
	if err != nil {
		return err
	}
	replay, err := again.CPU()
	if err = errors.Join(err, again.Kill()); err != nil {
		return err
	}
	v := replay.Seconds() / millions
	fmt.Printf("floor of three nodes: %.2f of the single node (replaying its log: %.3f CPU s a million samples)\n", (single+2*v)/single, v)
	return nil
}

func (o *clusterOptions) send(ctx context.Context, base, bodies string, rate float64) (load.Result, error) {
	f, err := workload.Open(bodies, o.senders)
	if err != nil {
		return load.Result{}, err
	}
	r, err := load.Offer(ctx, base, f, o.senders, rate)
	return r, errors.Join(err, f.Close())
}

// compareGroups loads a cluster of one shard and one of many, at full and at an
// offered rate, and measures the rest on the latter.
func compareGroups(ctx context.Context, o *clusterOptions, path, dir, bodies string, single float64) (err error) {
	var fsyncs [2]float64
	for k, shards := range []int{1, o.shards} {
		c, err := newTrio(ctx, o, path, filepath.Join(dir, fmt.Sprint("cluster", shards)), shards)
		if err != nil {
			return err
		}
		_, err = c.loaded(ctx, bodies, single, 0)
		if err == nil {
			fsyncs[k], err = c.loaded(ctx, bodies, single, o.offered)
		}
		if err == nil && k == 1 {
			fmt.Printf("fsyncs a million samples at %.0f samples/s, %d groups to 2: %.2f (reach 1.2)\n", o.offered, o.shards+1, fsyncs[1]/fsyncs[0])
			if o.only == "" {
				err = c.restMeasured(ctx)
			}
		}
		if err = errors.Join(err, c.kill()); err != nil {
			return err
		}
	}
	return nil
}

// onlyOne measures one thing on a new cluster.
func onlyOne(ctx context.Context, o *clusterOptions, path, dir string) (err error) {
	measure, ok := map[string]func(*trio, context.Context) error{
		"idle": (*trio).idleCPU, "latency": (*trio).latency, "failover": (*trio).failover,
	}[o.only]
	if !ok {
		return fmt.Errorf("--only %s: load, idle, latency, failover or catchup", o.only)
	}
	c, err := newTrio(ctx, o, path, dir, o.shards)
	if err != nil {
		return err
	}
	return errors.Join(measure(c, ctx), c.kill())
}

func (c *trio) restMeasured(ctx context.Context) error {
	if err := c.idleCPU(ctx); err != nil {
		return err
	}
	if err := c.latency(ctx); err != nil {
		return err
	}
	return c.failover(ctx)
}

// loaded sends the bodies, at a rate or (0) as fast as it goes, and returns the fsyncs
// of all nodes a million samples. A second round finds its samples stored already, which
// costs the log and the network the same.
func (c *trio) loaded(ctx context.Context, bodies string, single, rate float64) (float64, error) {
	cpu, err1 := c.cpu()
	syncs, err2 := c.counter(ctx, "strandline_log_fsyncs_total")
	sent, err3 := c.o.send(ctx, c.nodes[0].Base, bodies, rate)
	if err := errors.Join(err1, err2, err3); err != nil {
		return 0, err
	}
	time.Sleep(time.Second) // the followers' share
	cpu2, err1 := c.cpu()
	syncs2, err2 := c.counter(ctx, "strandline_log_fsyncs_total")
	millions := float64(sent.Samples) / 1e6
	v := (cpu2 - cpu).Seconds() / millions
	if rate > 0 {
		fmt.Printf("three nodes, %d groups, %.0f samples/s offered: %.0f fsyncs a million samples\n", c.shard+1, rate, (syncs2-syncs)/millions)
	} else {
		fmt.Printf("three nodes, %d groups: %.3f CPU s a million samples together, %.2f of the single node (reach 2.5); %.0f samples/s, %d retries\n",
			c.shard+1, v, v/single, float64(sent.Samples)/sent.Wall.Seconds(), sent.Retries)
	}
	return (syncs2 - syncs) / millions, errors.Join(err1, err2)
}

func (c *trio) idleCPU(ctx context.Context) error {
	var before [3]time.Duration
	for i, p := range c.nodes {
		var err error
		if before[i], err = p.CPU(); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(c.o.idle):
	}
	fmt.Printf("idle, %d groups:", c.shard+1)
	for i, p := range c.nodes {
		after, err := p.CPU()
		if err != nil {
			return err
		}
		fmt.Printf(" %.1f %%", 100*(after-before[i]).Seconds()/c.o.idle.Seconds())
	}
	fmt.Println(" of a core (reach 4 %)")
	return nil
}

// failover kills a node that leads a third of the groups, again and again, and
// measures how long writes to another node, which go to all shards, stay out.
func (c *trio) failover(ctx context.Context) error {
	var gaps []time.Duration
	body, err := small(7, lightSeries)
	if err != nil {
		return err
	}
	for k := range c.o.kills {
		if err := c.balanced(ctx); err != nil {
			return err
		}
		victim := k % 3
		contact := c.nodes[(victim+1)%3].Base
		if err := c.nodes[victim].Kill(); err != nil {
			return err
		}
		begin := time.Now()
		for {
			rctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			status, err := load.Post(rctx, http.DefaultClient, contact, body)
			cancel()
			if err == nil && status/100 == 2 {
				break
			}
			if ctx.Err() != nil || time.Since(begin) > time.Minute {
				return fmt.Errorf("no write a minute after kill %d: %d, %w", k, status, err)
			}
		}
		gaps = append(gaps, time.Since(begin))
		if c.nodes[victim], err = peers.Start(ctx, c.spec(victim), filepath.Join(c.dir, nodeName(victim))); err != nil {
			return err
		}
	}
	slices.Sort(gaps)
	if n := len(gaps); n > 0 {
		fmt.Printf("writes out after SIGKILL of a third's leader, %d times: p50 %v (reach 1 s), p99 %v, worst %v (reach 3 s)\n", n, gaps[n/2], gaps[n*99/100], gaps[n-1])
	}
	return nil
}
