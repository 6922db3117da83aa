package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/wal/clock"
)

// Errors of this package.
var (
	// ErrBadOptions: an option can't be used.
	ErrBadOptions = errors.New("bad alertmanager options")
	// ErrRefused: an Alertmanager answered with other than 2xx.
	ErrRefused = errors.New("alertmanager refused the alerts")
)

// path is where an Alertmanager takes alerts, below its URL.
const path = "/api/v2/alerts"

// Options of a Sender. Nil and zero values mean the defaults named here.
type Options struct {
	// URLs of Alertmanagers, without the path of its API; each gets every alert.
	URLs []string
	// User and PasswordFile are for basic authentication; the file is read for each request.
	User, PasswordFile string
	QueueLength        int           // alerts that wait for one Alertmanager; default 10,000
	BatchSize          int           // most alerts of one request; default 256
	Timeout            time.Duration // of one request; default 10s
	// Attempts is how often a batch is tried; default 3. Alerts that fire are told again anyway.
	Attempts   int
	Backoff    time.Duration         // before the second attempt, then doubled; default 1s
	Clock      clock.Clock           // nil: the machine's
	Logger     *slog.Logger          // nil: discard
	Registerer prometheus.Registerer // nil: no metrics
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	for _, d := range []struct {
		v   *int
		def int
	}{{&o.QueueLength, 10_000}, {&o.BatchSize, 256}, {&o.Attempts, 3}} {
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Backoff == 0 {
		o.Backoff = time.Second
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate reports every fault at once, each wrapping ErrBadOptions.
func (o *Options) Validate() error {
	var errs []error
	for _, u := range o.URLs {
		if err := CheckURL(u); err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", ErrBadOptions, err))
		}
	}
	if o.QueueLength < 0 || o.BatchSize < 0 || o.Attempts < 0 || o.Timeout < 0 || o.Backoff < 0 {
		errs = append(errs, fmt.Errorf("%w: no number may be negative", ErrBadOptions))
	}
	return errors.Join(errs...)
}

// CheckURL tells why a text is not the URL of an Alertmanager. The error holds no credentials.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is not an http or https URL", u.Redacted())
	case u.User != nil:
		return errors.New("a URL of an Alertmanager must hold no credentials: name a user and a password file")
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q must have no query or fragment", u.Redacted())
	}
	return nil
}

// Sender tells alerts to Alertmanagers. It is safe for concurrent use and runs a
// goroutine for each of them, which Close joins.
type Sender struct {
	o       Options
	client  *http.Client
	metrics *metrics
	cancel  context.CancelFunc
	done    sync.WaitGroup
	targets []*target
}

// New starts a Sender.
func New(opts *Options) (*Sender, error) {
	s := &Sender{}
	if opts != nil {
		s.o = *opts
	}
	s.o.EnsureDefaults()
	if err := s.o.Validate(); err != nil {
		return nil, err
	}
	var err error
	if s.metrics, err = newMetrics(s.o.Registerer); err != nil {
		return nil, err
	}
	s.client = &http.Client{Timeout: s.o.Timeout, Transport: &http.Transport{Proxy: nil, MaxIdleConnsPerHost: 2, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	for _, u := range s.o.URLs {
		t := &target{s: s, url: strings.TrimSuffix(u, "/") + path, work: make(chan struct{}, 1)}
		s.metrics.add(t.url)
		s.targets = append(s.targets, t)
		s.done.Go(func() { t.run(ctx) })
	}
	return s, nil
}

// URLs returns where alerts are sent.
func (s *Sender) URLs() []string {
	var list []string
	for _, t := range s.targets {
		list = append(list, t.url)
	}
	return list
}

// Send queues alerts and does not block. When a queue is full its oldest alerts go:
// those that still fire are told again.
func (s *Sender) Send(alerts []Alert) {
	for _, t := range s.targets {
		t.add(alerts)
	}
}

// Close drops what is queued, ends the request that runs, and waits.
func (s *Sender) Close() error {
	s.cancel()
	s.done.Wait()
	s.client.CloseIdleConnections()
	return nil
}

// target is one Alertmanager and what waits for it.
type target struct {
	s    *Sender
	url  string
	work chan struct{}
	mu   struct {
		sync.Mutex
		queue []Alert
	}
}

func (t *target) add(alerts []Alert) {
	limit := t.s.o.QueueLength
	t.mu.Lock()
	t.mu.queue = append(t.mu.queue, alerts...)
	dropped := max(0, len(t.mu.queue)-limit)
	if dropped > 0 {
		t.mu.queue = append([]Alert(nil), t.mu.queue[dropped:]...)
	}
	t.s.metrics.queue.WithLabelValues(t.url).Set(float64(len(t.mu.queue)))
	t.mu.Unlock()
	if dropped > 0 {
		t.s.metrics.dropped.WithLabelValues(t.url).Add(float64(dropped))
		t.s.o.Logger.Warn("the queue of alerts is full: the oldest were dropped", "alertmanager", t.url, "count", dropped)
	}
	select {
	case t.work <- struct{}{}:
	default:
	}
}

// next takes a batch from the queue.
func (t *target) next() []Alert {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(t.s.o.BatchSize, len(t.mu.queue))
	batch := append([]Alert(nil), t.mu.queue[:n]...)
	t.mu.queue = t.mu.queue[n:]
	t.s.metrics.queue.WithLabelValues(t.url).Set(float64(len(t.mu.queue)))
	return batch
}

func (t *target) run(ctx context.Context) {
	for {
		batch := t.next()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-t.work:
			}
			continue
		}
		if err := t.try(ctx, batch); err != nil {
			if ctx.Err() != nil {
				return
			}
			t.s.metrics.dropped.WithLabelValues(t.url).Add(float64(len(batch)))
			t.s.o.Logger.Error("alerts were not sent", "alertmanager", t.url, "count", len(batch), "err", err)
			continue
		}
		t.s.metrics.sent.WithLabelValues(t.url).Add(float64(len(batch)))
	}
}

// try posts a batch until it is taken, refused for good, or out of attempts.
func (t *target) try(ctx context.Context, batch []Alert) error {
	body, err := json.Marshal(batch)
	if err != nil {
		return err
	}
	pause := t.s.o.Backoff
	for n := 1; ; n++ {
		again, err := t.post(ctx, body)
		if err == nil || !again || n >= t.s.o.Attempts {
			return err
		}
		t.s.metrics.errors.WithLabelValues(t.url).Add(float64(len(batch)))
		ch, release := t.s.o.Clock.After(pause)
		select {
		case <-ctx.Done():
			release()
			return ctx.Err()
		case <-ch:
		}
		pause *= 2
	}
}

// post reports whether another attempt may help.
func (t *target) post(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "strandline")
	if t.s.o.User != "" {
		password, err := os.ReadFile(t.s.o.PasswordFile)
		if err != nil {
			return true, err
		}
		req.SetBasicAuth(t.s.o.User, strings.TrimSpace(string(password)))
	}
	resp, err := t.s.client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return false, nil
	}
	return resp.StatusCode/100 == 5 || resp.StatusCode == http.StatusTooManyRequests, fmt.Errorf("%w: %s", ErrRefused, resp.Status)
}
