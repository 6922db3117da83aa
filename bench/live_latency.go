package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/workload"
)

// arrivals are when the samples of one series came to one subscriber, by tick.
type arrivals struct {
	series int
	at     []int64   // Unix nanoseconds; 0: not yet
	last   int       // tick
	acked  time.Time // when the subscription was
}

// take notes a frame: it must hold the one sample that comes next.
func (a *arrivals) take(s *live.Stream, f *live.Frame) error {
	switch string(f.Type) {
	case "data":
	case "ack":
		a.acked = f.At
		return nil
	case "series", "heartbeat":
		return nil
	default:
		return fmt.Errorf("%w: %s", live.ErrAnswer, f.Payload)
	}
	tick := int((f.T - s.Start.UnixMilli()) / s.Interval.Milliseconds())
	value, ok := strings.CutSuffix(string(f.Values), `"]]`)
	if i := strings.IndexByte(value, '"'); ok && i >= 0 {
		value = value[i+1:]
	}
	v, err := strconv.ParseFloat(value, 64)
	if err != nil || v != workload.SteadyValue(a.series, tick) || (a.last >= 0 && tick != a.last+1) {
		return fmt.Errorf("%w: series %d, tick %d after %d: %s", live.ErrAnswer, a.series, tick, a.last, f.Payload)
	}
	a.last = tick
	a.at[tick] = f.At.UnixNano()
	return nil
}

// latencyRun measures from the acknowledgement of a write to the frames that it causes: with
// subscribers to series of all the connections that write, and with all of them to series of
// one, so that a single request causes a frame for each.
func latencyRun(ctx context.Context, o *liveOptions) error {
	what := fmt.Sprintf("from acknowledgement to frame, samples mode, %d subscribers", o.subscribers)
	stride := max(o.series/o.subscribers/live.Lanes, 1) * live.Lanes
	err := latencyOf(ctx, o, what, func(i int) int { return (i*stride + i%live.Lanes) % o.series })
	if err != nil {
		return err
	}
	return latencyOf(ctx, o, "the same, all to series of the same request", func(i int) int { return i * stride % o.series })
}

// latencyOf measures with the series given to each subscriber.
func latencyOf(ctx context.Context, o *liveOptions, what string, series func(subscriber int) int) (err error) {
	p, done, err := o.serve(ctx, "latency")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	s, err := o.stream(p.Dir, o.length)
	if err != nil {
		return err
	}
	defer s.Close()
	all := make([]arrivals, o.subscribers)
	for i := range all {
		all[i].series, all[i].at, all[i].last = series(i), make([]int64, s.Ticks), -1
	}
	var sent live.Sent
	var used string
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { sent, err = s.Run(gctx, p.Base); return err })
	g.Go(func() error {
		time.Sleep(time.Until(s.Start.Add(o.warm / 2))) // so that the series are known
		crowd, err := live.Gather(gctx, strings.TrimPrefix(p.Base, "http://"), len(all), func(i int) string {
			return fmt.Sprintf(`{"op":"subscribe","id":"a","mode":"samples","query":%q}`, steadySelector(all[i].series))
		}, func(i int, f *live.Frame) error { return all[i].take(s, f) })
		if err != nil {
			return err
		}
		time.Sleep(time.Until(s.Start.Add(o.warm)))
		used, err = o.usage(gctx, p, time.Until(s.End()))
		time.Sleep(time.Second) // what is still on its way
		return errors.Join(err, crowd.Leave())
	})
	if err := g.Wait(); err != nil {
		return err
	}
	lat, err := latencies(s, all, o.warm)
	if err != nil {
		return err
	}
	p50, p99 := lat.At(0.5), lat.At(0.99)
	o.report(p50 < 5*time.Millisecond && p99 < 50*time.Millisecond, what, "p50 5 ms, p99 50 ms",
		"p50 %v, p99 %v, worst %v over %d frames, all in order; ingest %.0f samples/s, acknowledged p50 %v, p99 %v; %s",
		ms(p50), ms(p99), ms(lat.At(1)), len(lat), sent.PerSec, ms(sent.Ack.At(0.5)), ms(sent.Ack.At(0.99)), used)
	return nil
}

// latencies of the ticks after the warm-up, and after all have subscribed. A frame that
// came before the acknowledgement counts as 0. A tick that did not come fails.
func latencies(s *live.Stream, all []arrivals, warm time.Duration) (live.Latencies, error) {
	from := s.Start.Add(warm)
	for i := range all {
		if all[i].acked.IsZero() {
			return nil, fmt.Errorf("%w: subscriber %d has no subscription", live.ErrAnswer, i)
		}
		if all[i].acked.After(from) {
			from = all[i].acked
		}
	}
	first := int(from.Sub(s.Start)/s.Interval) + 1
	if first >= s.Ticks/2 {
		return nil, fmt.Errorf("%w: the last subscription was acknowledged at tick %d of %d", live.ErrVoid, first, s.Ticks)
	}
	var out live.Latencies
	for i := range all {
		for tick := first; tick < s.Ticks; tick++ {
			if all[i].at[tick] == 0 {
				return nil, fmt.Errorf("%w: tick %d of %d never came to subscriber %d", live.ErrAnswer, tick, s.Ticks, i)
			}
			out = append(out, max(0, time.Unix(0, all[i].at[tick]).Sub(s.Acked(all[i].series, tick))))
		}
	}
	slices.Sort(out)
	return out, nil
}

// steadySelector selects one series of the stream.
func steadySelector(i int) string {
	return fmt.Sprintf(`%s{n="%d"}`, workload.SteadyName(i%workload.SteadyNames), i/workload.SteadyNames)
}
