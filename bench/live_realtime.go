package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/workload"
)

// realtimeRun asks the realtime endpoint under ingest: first at a given rate, then as
// fast as it goes.
func realtimeRun(ctx context.Context, o *liveOptions) (err error) {
	p, done, err := o.serve(ctx, "realtime")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	s, err := o.stream(p.Dir, o.length)
	if err != nil {
		return err
	}
	defer s.Close()
	var sent live.Sent
	var paced, closed live.GetResult
	var used string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { sent, err = s.Run(gctx, p.Base); return err })
	g.Go(func() (err error) {
		time.Sleep(time.Until(s.Start.Add(o.warm)))
		get := &live.GetOptions{Base: p.Base, Paths: realtimePaths(), Conns: o.conns, Rate: o.rate, Until: s.End().Add(-o.length / 4), Check: checkRealtime}
		before, err := live.Used(p)
		if err != nil {
			return err
		}
		if paced, err = live.Get(gctx, get); err != nil {
			return err
		}
		after, err := live.Used(p)
		if err != nil {
			return err
		}
		used = after.Since(before)
		get.Rate, get.Until = 0, s.End()
		closed, err = live.Get(gctx, get)
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	perSec, p99 := float64(paced.Requests)/paced.Wall.Seconds(), paced.Latency.At(0.99)
	o.report(perSec >= 5000 && p99 < 50*time.Millisecond, "realtime endpoint, 50 connections, under ingest", "5,000/s, p99 50 ms, no error",
		"%.0f requests/s, p50 %v, p99 %v, worst %v, no error; %.0f bytes an answer; ingest %.0f samples/s, acknowledged p50 %v, p99 %v; %s",
		perSec, ms(paced.Latency.At(0.5)), ms(p99), ms(paced.Latency.At(1)), float64(paced.Bytes)/float64(paced.Requests), sent.PerSec, ms(sent.Ack.At(0.5)), ms(sent.Ack.At(0.99)), used)
	perSec, p99 = float64(closed.Requests)/closed.Wall.Seconds(), closed.Latency.At(0.99)
	o.report(perSec >= 5000 && p99 < 50*time.Millisecond, "the same, each asking again at once", "5,000/s, p99 50 ms, no error",
		"%.0f requests/s, p50 %v, p99 %v, worst %v, no error", perSec, ms(closed.Latency.At(0.5)), ms(p99), ms(closed.Latency.At(1)))
	return nil
}

func ms(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// realtimePaths are ten dashboards with five values each: one series, four times, and
// the sum of ten.
func realtimePaths() []string {
	var out []string
	for k := range 10 {
		var metrics []string
		for j := range 4 {
			metrics = append(metrics, fmt.Sprintf(`%s{n="%d"}`, workload.SteadyName(10*k+j), k+j))
		}
		metrics = append(metrics, fmt.Sprintf(`%s{group="g%d"}`, workload.SteadyName(10*k+5), k))
		out = append(out, "/api/v1/metrics/realtime?metrics="+url.QueryEscape(strings.Join(metrics, ",")))
	}
	return out
}

// checkRealtime looks at every answer, and closely at one in fifty: each metric has a value, and none is old.
func checkRealtime(k int, _ string, body []byte) error {
	if bytes.Contains(body, []byte("null")) || !bytes.Contains(body, []byte(`"status":"ok"`)) {
		return errors.New("a value is missing")
	}
	if k%50 != 0 {
		return nil
	}
	var a struct {
		Metrics map[string]struct {
			Value     float64
			Timestamp time.Time
			Series    []struct{ Value float64 }
		}
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return err
	}
	for name, m := range a.Metrics {
		sum, want := 0.0, 1
		for _, s := range m.Series {
			sum += s.Value
		}
		if strings.Contains(name, "group") {
			want = workload.SteadyGroup
		}
		if age := time.Since(m.Timestamp); age > time.Second || age < 0 || sum != m.Value || len(m.Series) != want {
			return fmt.Errorf("%s: %v old, %v of %d series that add up to %v", name, age, m.Value, len(m.Series), sum)
		}
	}
	if len(a.Metrics) != 5 {
		return fmt.Errorf("%d metrics", len(a.Metrics))
	}
	return nil
}
