package live

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/load"
	"github.com/strandline-db/strandline/bench/workload"
)

// ErrVoid reports a run whose load was not what it should have been.
var ErrVoid = errors.New("live: void, the load was missed")

// Lanes is the number of connections that write: with 10,000 series a request then has
// 2,000 samples, which is what Prometheus sends at most by default.
const Lanes = 5

// Stream is a steady stream of samples that is sent in real time: the sample of a tick
// bears the time at which it is due.
type Stream struct {
	workload.SteadyOptions
	file *workload.File
	acks [Lanes][]atomic.Int64 // Unix nanoseconds, by tick
}

// NewStream writes the bodies below dir, to begin soon: Run must be called before that.
func NewStream(dir string, series int, interval, length, lead time.Duration) (*Stream, error) {
	s := &Stream{SteadyOptions: workload.SteadyOptions{Series: series, Ticks: int(length / interval), Interval: interval, Lanes: Lanes}}
	s.Start = time.Now().Add(lead).Truncate(time.Second)
	path := filepath.Join(dir, "bodies")
	if _, err := workload.Steady(path, s.SteadyOptions); err != nil {
		return nil, err
	}
	var err error
	if s.file, err = workload.Open(path, Lanes); err != nil {
		return nil, err
	}
	for i := range s.acks {
		s.acks[i] = make([]atomic.Int64, s.Ticks)
	}
	if time.Now().After(s.Start) {
		return nil, errors.Join(fmt.Errorf("%w: the bodies took longer than %s", ErrVoid, lead), s.file.Close())
	}
	return s, nil
}

// End is when the last tick is due.
func (s *Stream) End() time.Time { return s.Start.Add(time.Duration(s.Ticks-1) * s.Interval) }

// Due is when a tick's samples are sent by a lane; lanes are spread over the interval,
// so that the load is even.
func (s *Stream) due(lane, tick int) time.Time {
	return s.Start.Add(time.Duration(tick)*s.Interval + time.Duration(lane)*s.Interval/Lanes)
}

// Acked is when the write of series i at a tick was acknowledged; zero: not yet.
func (s *Stream) Acked(i, tick int) time.Time {
	ns := s.acks[i%Lanes][tick].Load()
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// Behind is by how much any write so far, or one that is due, is late.
func (s *Stream) Behind() (worst time.Duration) {
	now := time.Now()
	for lane := range s.acks {
		for tick := range s.acks[lane] {
			due := s.due(lane, tick)
			if due.After(now) {
				break
			}
			acked := now
			if ns := s.acks[lane][tick].Load(); ns != 0 {
				acked = time.Unix(0, ns)
			}
			worst = max(worst, acked.Sub(due))
		}
	}
	return worst
}

// tolerable is by how much a write may be late.
const tolerable = time.Second

// OrVoid makes of a failure one of the load, if that was missed by then: what is wrong may come of it.
func (s *Stream) OrVoid(err error) error {
	if err == nil || errors.Is(err, ErrVoid) {
		return err
	}
	if late := s.Behind(); late > tolerable {
		return fmt.Errorf("%w: a write is %v late; and then: %w", ErrVoid, late, err)
	}
	return err
}

// Sent is what a stream came to.
type Sent struct {
	Samples  int64
	Wall     time.Duration
	Ack      Latencies // from when a body was due to its acknowledgement
	Retries  int
	PerSec   float64
	Expected float64
}

// Run sends every tick when it is due. A stream that is later than tolerable
// with any body is void.
func (s *Stream) Run(ctx context.Context, base string) (Sent, error) {
	results := make([]Sent, Lanes)
	g, gctx := errgroup.WithContext(ctx)
	for lane := range Lanes {
		g.Go(func() error { return s.lane(gctx, base, lane, &results[lane]) })
	}
	if err := g.Wait(); err != nil {
		return Sent{}, err
	}
	out := Sent{Wall: time.Since(s.Start), Expected: float64(s.Series) / s.Interval.Seconds()}
	for _, r := range results {
		out.Samples += r.Samples
		out.Retries += r.Retries
		out.Ack = append(out.Ack, r.Ack...)
	}
	slices.Sort(out.Ack)
	out.PerSec = float64(out.Samples) / max(out.Wall, time.Duration(s.Ticks)*s.Interval).Seconds()
	if worst := out.Ack.At(1); worst > tolerable {
		return out, fmt.Errorf("%w: a write was acknowledged %v late", ErrVoid, worst)
	}
	return out, nil
}

func (s *Stream) lane(ctx context.Context, base string, lane int, out *Sent) error {
	transport := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true, WriteBufferSize: 128 << 10}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var buf []byte
	for tick, b := range s.file.Lane(lane) {
		var err error
		if buf, err = s.file.Read(b, buf); err != nil {
			return err
		}
		due := s.due(lane, tick)
		if err := sleepUntil(ctx, due); err != nil {
			return err
		}
		for {
			status, err := load.Post(ctx, client, base, buf)
			if err != nil {
				return err
			}
			if status/100 == 2 {
				break
			}
			out.Retries++
			if err := sleepUntil(ctx, time.Now().Add(10*time.Millisecond)); err != nil {
				return err
			}
		}
		now := time.Now()
		s.acks[lane][tick].Store(now.UnixNano())
		out.Ack = append(out.Ack, now.Sub(due))
		out.Samples += int64(b.Samples)
	}
	return nil
}

// Close removes nothing: the folder is the caller's.
func (s *Stream) Close() error { return s.file.Close() }

func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Latencies are sorted durations.
type Latencies []time.Duration

// At returns the quantile q, from 0 to 1, by nearest rank.
func (l Latencies) At(q float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	return l[min(len(l)-1, int(q*float64(len(l))))]
}
