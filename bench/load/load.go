package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/workload"
)

// ErrRefused reports an answer that says the body will never be taken.
var ErrRefused = errors.New("load: body refused")

// Result is what one run of a workload took.
type Result struct {
	Samples   int64
	Wall      time.Duration
	LoaderCPU time.Duration // user and system time of this process
	Retries   int64         // bodies sent again after a 5xx answer
}

// ErrBehind reports a load that was not kept up with.
var ErrBehind = errors.New("load: the offered rate was not kept")

// Send sends every body of f, lanes in parallel, to base's remote-write endpoint: each
// lane the next body when the last is answered.
func Send(ctx context.Context, base string, f *workload.File, lanes int) (Result, error) {
	return Offer(ctx, base, f, lanes, 0)
}

// Offer is Send at a rate of all lanes together, in samples a second; 0: as fast as it
// goes. It fails with ErrBehind when the sending took a twentieth longer than that.
func Offer(ctx context.Context, base string, f *workload.File, lanes int, rate float64) (Result, error) {
	cpu, begin := selfCPU(), time.Now()
	results := make([]Result, lanes)
	lane, all := make([]int64, lanes), int64(0)
	for i := range lanes {
		for _, b := range f.Lane(i) {
			lane[i] += int64(b.Samples)
		}
		all += lane[i]
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range lanes {
		var due func(samples int64) time.Time
		if rate > 0 && lane[i] > 0 { // all lanes take the same time, however the samples are divided, and don't march in step
			share := float64(lane[i]) / float64(all)
			phase := float64(f.Lane(i)[0].Samples) * float64(i) / float64(lanes)
			due = func(samples int64) time.Time {
				return begin.Add(time.Duration((float64(samples) + phase) / share / rate * float64(time.Second)))
			}
		}
		g.Go(func() error { return sendLane(ctx, base, f, i, due, &results[i]) })
	}
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	out := Result{Wall: time.Since(begin), LoaderCPU: selfCPU() - cpu}
	for _, r := range results {
		out.Samples += r.Samples
		out.Retries += r.Retries
	}
	if planned := float64(out.Samples) / rate; rate > 0 && out.Wall.Seconds() > 1.05*planned {
		return out, fmt.Errorf("%w: %.1f s for what should take %.1f s", ErrBehind, out.Wall.Seconds(), planned)
	}
	return out, nil
}

// sendLane sends one lane's bodies, each not before it is due; nil: at once.
func sendLane(ctx context.Context, base string, f *workload.File, lane int, due func(samples int64) time.Time, out *Result) error {
	transport := &http.Transport{MaxConnsPerHost: 1, DisableCompression: true, WriteBufferSize: 128 << 10}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	var buf []byte
	for _, b := range f.Lane(lane) {
		var err error
		if buf, err = f.Read(b, buf); err != nil {
			return err
		}
		if due != nil {
			time.Sleep(time.Until(due(out.Samples)))
		}
		for {
			status, err := Post(ctx, client, base, buf)
			if err != nil {
				return err
			}
			if status/100 == 2 {
				break
			}
			out.Retries++
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
		out.Samples += int64(b.Samples)
	}
	return nil
}

// Post sends one snappy-compressed remote-write 1.0 body and returns the status: 2xx or 5xx. Others are ErrRefused.
func Post(ctx context.Context, client *http.Client, base string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/v1/write", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return 0, err
	}
	if c := res.StatusCode / 100; c != 2 && c != 5 {
		return 0, fmt.Errorf("%w: %s: %s", ErrRefused, res.Status, text)
	}
	return res.StatusCode, nil
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
