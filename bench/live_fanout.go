package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/peers"
	"github.com/strandline-db/strandline/bench/workload"
)

// pushes are when a step came to its first and last client, by second of the run.
type pushes struct {
	start       time.Time
	clients     int
	first, last []atomic.Int64 // Unix nanoseconds
	count       []atomic.Int64
	prev        []int64 // by client: the last step, in milliseconds
}

// take notes a frame of a client, whose steps must come one after the other.
func (p *pushes) take(client int, f *live.Frame) error {
	switch string(f.Type) {
	case "data":
	case "ack", "series", "heartbeat":
		return nil
	default:
		return fmt.Errorf("%w: %s", live.ErrAnswer, f.Payload)
	}
	if f.Rev > 0 { // a correction; it has no part in the measure
		return nil
	}
	if prev := p.prev[client]; prev != 0 && f.T != prev+1000 {
		return fmt.Errorf("%w: step %d after %d", live.ErrAnswer, f.T, prev)
	}
	p.prev[client] = f.T
	k := int(f.T/1000 - p.start.Unix())
	if k < 0 || k >= len(p.count) {
		return nil
	}
	now := f.At.UnixNano()
	p.first[k].CompareAndSwap(0, now)
	for {
		was := p.first[k].Load()
		if was <= now || p.first[k].CompareAndSwap(was, now) {
			break
		}
	}
	for {
		was := p.last[k].Load()
		if was >= now || p.last[k].CompareAndSwap(was, now) {
			break
		}
	}
	p.count[k].Add(1)
	return nil
}

// fanoutRun measures many connections on one query: their memory and how far apart a
// step reaches them. The stream is thin, so that what it stores does not count.
func fanoutRun(ctx context.Context, o *liveOptions) (err error) {
	p, done, err := o.serve(ctx, "fanout")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	length := 3*o.length + time.Duration(o.fanout)*5*time.Millisecond
	s, err := live.NewStream(p.Dir, 1000, time.Second, length, 3*time.Second)
	if err != nil {
		return err
	}
	defer s.Close()
	sctx, end := context.WithCancel(ctx)
	defer end()
	g, gctx := errgroup.WithContext(sctx)
	g.Go(func() error {
		if _, err := s.Run(gctx, p.Base); err != nil && sctx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error { defer end(); return o.fan(gctx, p, s) })
	return g.Wait()
}

func (o *liveOptions) fan(ctx context.Context, p *peers.Process, s *live.Stream) error {
	query := fmt.Sprintf(`{"op":"subscribe","id":"a","step":"1s","query":"sum by (region) (rate(%s[10s]))"}`, workload.SteadyName(0))
	join := func(n int) (*live.Crowd, *pushes, error) {
		seconds := s.Ticks + 10
		all := &pushes{start: s.Start, clients: n, first: make([]atomic.Int64, seconds), last: make([]atomic.Int64, seconds), count: make([]atomic.Int64, seconds), prev: make([]int64, n)}
		c, err := live.Gather(ctx, strings.TrimPrefix(p.Base, "http://"), n, func(int) string { return query }, all.take)
		return c, all, err
	}
	time.Sleep(time.Until(s.Start.Add(o.warm)))
	few, _, err := join(1) // the query itself is not what a connection costs
	if err != nil {
		return err
	}
	time.Sleep(o.length / 4)
	before, err := peers.Anon(p.PID())
	if err != nil {
		return err
	}
	begin := time.Now()
	many, all, err := join(o.fanout)
	if err != nil {
		return err
	}
	joined := time.Since(begin)
	time.Sleep(2 * time.Second)
	from := int(time.Now().Unix() - s.Start.Unix())
	used, err := o.usage(ctx, p, o.length)
	if err != nil {
		return err
	}
	after, err := peers.Anon(p.PID())
	if err != nil {
		return err
	}
	to := int(time.Now().Unix()-s.Start.Unix()) - 2 // those after it may be on their way
	if err := errors.Join(many.Leave(), few.Leave()); err != nil {
		return err
	}
	each := float64(after-before) / float64(o.fanout)
	o.report(each < 20<<10, fmt.Sprintf("memory a connection, %d on one query", o.fanout), "20 KiB", "%.1f KiB (anonymous memory %.0f to %.0f MiB, connected in %v)",
		each/1024, float64(before)/(1<<20), float64(after)/(1<<20), joined.Round(time.Millisecond))
	var spread live.Latencies
	for k := from; k < to; k++ {
		if n := all.count[k].Load(); n != int64(o.fanout) {
			return fmt.Errorf("%w: step %d came to %d of %d", live.ErrAnswer, k, n, o.fanout)
		}
		spread = append(spread, time.Duration(all.last[k].Load()-all.first[k].Load()))
	}
	slices.Sort(spread)
	o.report(len(spread) > 0 && spread.At(0.99) < 250*time.Millisecond, "push spread, first to last of them", "p99 250 ms", "p50 %v, p99 %v over %d steps, each to all in order; %s",
		ms(spread.At(0.5)), ms(spread.At(0.99)), len(spread), used)
	return nil
}
