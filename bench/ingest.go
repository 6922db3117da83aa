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

// lanes is the number of connections, each with its own share of the series.
const lanes = 4

type ingestOptions struct {
	quick                      bool
	set, save, work, only      string
	hosts                      int
	seed                       uint64
	strandline, victoria, prom string
	serveArgs                  string
	settle                     time.Duration
	command                    string
}

// row is what was measured of one server.
type row struct {
	Server         string  `json:"server"`
	SamplesPerSec  float64 `json:"samples_per_second"`
	CPUIngest      float64 `json:"cpu_seconds_per_million_at_end_of_ingest"`
	CPUSettled     float64 `json:"cpu_seconds_per_million_after_settling"`
	CPUStop        float64 `json:"cpu_seconds_per_million_with_graceful_stop"`
	PeakAnon       int64   `json:"peak_anonymous_bytes"`
	BytesRunning   float64 `json:"disk_bytes_per_sample_running"`
	BytesStopped   float64 `json:"disk_bytes_per_sample_stopped"`
	LoaderCPU      float64 `json:"loader_cpu_seconds_per_million"`
	Retries        int64   `json:"retries"`
	SamplesSent    int64   `json:"samples_sent"`
	SamplesVisible int64   `json:"samples_visible"` // by count_over_time, before the stop
}

func ingest(ctx context.Context, args []string) (err error) {
	var o ingestOptions
	fs := flag.NewFlagSet("ingest", flag.ContinueOnError)
	fs.BoolVar(&o.quick, "quick", false, "10,000 series for 10 minutes instead of 100,000 for 30")
	fs.StringVar(&o.set, "set", "", "recorded set of remote-write bodies to use instead of the fleet")
	fs.IntVar(&o.hosts, "hosts", 10, "copies of the recorded set")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of the fleet")
	fs.StringVar(&o.only, "only", "strandline,victoria-metrics,prometheus", "servers to run, in this order")
	fs.StringVar(&o.save, "save", "", "name under bench/results to keep the result as")
	fs.StringVar(&o.work, "work", os.TempDir(), "folder for bodies and data")
	fs.DurationVar(&o.settle, "settle", 90*time.Second, "longest wait for background work to end")
	fs.StringVar(&o.strandline, "strandline", "bin/strandline", "path of the program")
	fs.StringVar(&o.victoria, "victoria-metrics", "victoria-metrics", "path of the program")
	fs.StringVar(&o.prom, "prometheus", "", "path of Prometheus 3.16 (default .cache/bin/prometheus, then PATH)")
	fs.StringVar(&o.serveArgs, "serve-args", "", "more arguments for strandline serve, divided by spaces")
	if err := fs.Parse(args); err != nil {
		return err
	}
	o.command = "go run ./bench ingest " + strings.Join(args, " ")
	specs, err := o.specs()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.work, "strandline-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	path := filepath.Join(dir, "bodies")
	info, err := o.bodies(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %d series, %d samples in %d bodies of %d bytes\n", info.Name, info.Series, info.Samples, info.Bodies, info.Bytes)
	var rows []row
	for _, s := range specs {
		r, err := measure(ctx, s, path, info, filepath.Join(dir, s.Name), o.settle)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		fmt.Fprintf(os.Stderr, "%+v\n", r)
		rows = append(rows, r)
	}
	return report(o.command, o.save, info, rows)
}

// specs finds the programs of the servers to run.
func (o *ingestOptions) specs() ([]peers.Spec, error) {
	var out []peers.Spec
	for _, name := range strings.Split(o.only, ",") {
		var path string
		var err error
		switch name {
		case "strandline":
			if path, err = peers.Find(o.strandline); err == nil {
				out = append(out, peers.Strandline(path, strings.Fields(o.serveArgs)...))
			}
		case "victoria-metrics":
			if path, err = peers.Find(o.victoria); err == nil {
				out = append(out, peers.VictoriaMetrics(path))
			}
		case "prometheus":
			if path, err = peers.Find(o.prom, ".cache/bin/prometheus", "prometheus"); err == nil {
				out = append(out, peers.Prometheus(path))
			}
		default:
			err = fmt.Errorf("unknown server %q", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bodies makes the workload. It ends a minute ago, so that no server holds back the newest samples.
func (o *ingestOptions) bodies(path string) (workload.Info, error) {
	end := time.Now().Add(-time.Minute).Truncate(10 * time.Second)
	if o.set != "" {
		return workload.Set(path, o.set, workload.SetOptions{Hosts: o.hosts, Lanes: lanes, End: end})
	}
	f := workload.FleetOptions{Seed: o.seed, Lanes: lanes, End: end}
	if o.quick {
		f.Series, f.Scrapes = 10_000, 60
	}
	return workload.Fleet(path, f)
}

// measure runs one server, alone, through the whole workload.
func measure(ctx context.Context, s peers.Spec, path string, info workload.Info, dir string, settle time.Duration) (_ row, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return row{}, err
	}
	f, err := workload.Open(path, lanes)
	if err != nil {
		return row{}, err
	}
	defer f.Close()
	p, err := peers.Start(ctx, s, dir)
	if err != nil {
		return row{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Kill())
		}
	}()
	atStart, err := p.CPU()
	if err != nil {
		return row{}, err
	}
	sent, err := load.Send(ctx, p.Base, f, lanes)
	if err != nil {
		return row{}, err
	}
	atEnd, err1 := p.CPU()
	err2 := p.Settle(ctx, settle)
	settled, err3 := p.CPU()
	peak := p.PeakAnon()
	running, err4 := peers.DirBytes(filepath.Join(dir, "data"))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return row{}, err
	}
	millions := float64(sent.Samples) / 1e6
	r := row{
		Server: s.Name, SamplesPerSec: float64(sent.Samples) / sent.Wall.Seconds(), PeakAnon: peak,
		CPUIngest: (atEnd - atStart).Seconds() / millions, CPUSettled: (settled - atStart).Seconds() / millions,
		BytesRunning: float64(running) / float64(sent.Samples), LoaderCPU: sent.LoaderCPU.Seconds() / millions,
		Retries: sent.Retries, SamplesSent: sent.Samples,
	}
	if r.SamplesVisible, err = visible(ctx, p, info); err != nil {
		return row{}, err
	}
	checked, err := p.CPU()
	if err != nil {
		return row{}, err
	}
	total, err := p.Stop()
	if err != nil {
		return row{}, err
	}
	stopped, err := peers.DirBytes(filepath.Join(dir, "data"))
	r.CPUStop = r.CPUSettled + max(0, (total-checked).Seconds())/millions
	r.BytesStopped = float64(stopped) / float64(sent.Samples)
	return r, errors.Join(err, os.RemoveAll(dir))
}

// visible counts what queries see, one metric name at a time, since count_over_time drops the name.
func visible(ctx context.Context, p *peers.Process, info workload.Info) (int64, error) {
	window := (info.End-info.Start)/1000 + 60
	var total int64
	for _, name := range info.Names {
		expr := fmt.Sprintf("sum(count_over_time({__name__=%q}[%ds]))", name, window)
		n, err := queryNumber(ctx, p.Base, p.Query, expr, info.End)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", expr, err)
		}
		total += int64(n)
	}
	return total, nil
}
