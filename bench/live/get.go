package live

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrAnswer reports an answer that is not what it should be.
var ErrAnswer = errors.New("live: wrong answer")

// GetOptions say what many connections ask for, and how often.
type GetOptions struct {
	Base  string   // http://HOST:PORT
	Paths []string // connection i begins with the ith and goes on from there
	Conns int
	// Rate is requests a second of all connections together; 0: each asks again at once.
	Rate  float64
	Until time.Time
	// Check judges the kth answer of a connection. It must not keep body.
	Check func(k int, path string, body []byte) error
}

// GetResult is what came of it.
type GetResult struct {
	Requests int
	Bytes    int64
	Latency  Latencies
	Wall     time.Duration
}

// Get asks until the time is up. The latency of a request counts from when it was due, if its connection
// was still waiting for an answer then, and else from when it was sent: the server answers for its own
// delay and for what queues up behind it, not for our timers.
func Get(ctx context.Context, o *GetOptions) (GetResult, error) {
	u, err := url.Parse(o.Base)
	if err != nil {
		return GetResult{}, err
	}
	results := make([]GetResult, o.Conns)
	begin := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for i := range o.Conns {
		g.Go(func() error {
			c, err := net.Dial("tcp", u.Host)
			if err != nil {
				return err
			}
			defer c.Close()
			stop := context.AfterFunc(gctx, func() { c.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			return o.ask(gctx, i, u.Host, c, begin, &results[i])
		})
	}
	if err := g.Wait(); err != nil {
		return GetResult{}, err
	}
	out := GetResult{Wall: time.Since(begin)}
	for _, r := range results {
		out.Requests += r.Requests
		out.Bytes += r.Bytes
		out.Latency = append(out.Latency, r.Latency...)
	}
	slices.Sort(out.Latency)
	return out, nil
}

func (o *GetOptions) ask(ctx context.Context, i int, host string, c net.Conn, begin time.Time, out *GetResult) error {
	r := bufio.NewReaderSize(c, 4096)
	var body []byte
	every := time.Duration(0)
	if o.Rate > 0 {
		every = time.Duration(float64(o.Conns) / o.Rate * float64(time.Second))
	}
	due := begin.Add(every * time.Duration(i) / time.Duration(o.Conns))
	for k := 0; due.Before(o.Until); k++ {
		from := due
		if time.Now().Before(due) {
			if err := sleepUntil(ctx, due); err != nil {
				return err
			}
			from = time.Now()
		}
		path := o.Paths[(i+k)%len(o.Paths)]
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); err != nil {
			return err
		}
		status, b, err := readAnswer(r, body)
		body = b
		if err != nil {
			return err
		}
		now := time.Now()
		out.Latency = append(out.Latency, now.Sub(from))
		out.Requests++
		out.Bytes += int64(len(body))
		if status != 200 {
			return fmt.Errorf("%w: %s: %d %.200s", ErrAnswer, path, status, body)
		}
		if err := o.Check(k, path, body); err != nil {
			return fmt.Errorf("%w: %s: %w: %.500s", ErrAnswer, path, err, body)
		}
		if due = due.Add(every); every == 0 {
			due = now
		}
	}
	return nil
}

// readAnswer reads an HTTP/1.1 answer with a Content-Length into dst's memory.
func readAnswer(r *bufio.Reader, dst []byte) (status int, body []byte, err error) {
	length := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, dst, err
		}
		line = bytes.TrimRight(line, "\r\n")
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case first:
			if len(line) < 12 {
				return 0, dst, fmt.Errorf("%w: %q", ErrAnswer, line)
			}
			status, err = strconv.Atoi(string(line[9:12]))
		case len(line) == 0:
			if length < 0 {
				return 0, dst, fmt.Errorf("%w: no Content-Length", ErrAnswer)
			}
			body = slices.Grow(dst[:0], length)[:length]
			_, err = io.ReadFull(r, body)
			return status, body, err
		case bytes.EqualFold(name, []byte("Content-Length")):
			length, err = strconv.Atoi(string(bytes.TrimSpace(value)))
		}
		if err != nil {
			return 0, dst, err
		}
	}
}
