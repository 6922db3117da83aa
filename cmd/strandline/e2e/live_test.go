package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang/snappy"

	"github.com/strandline-db/strandline/server/live/client"
)

const (
	liveClients = 50
	liveSeries  = 5
	liveStep    = 200 * time.Millisecond
	liveMetric  = `ledger{writer="0"}`
)

// liveQueries are evaluated in each of the ways, each with the relative error that it may have.
var liveQueries = map[string]float64{
	liveMetric:                                  0,
	`sum by (writer) (rate(ledger[2s]))`:        1e-12,
	`max by (writer) (ledger)`:                  0,
	`avg_over_time(ledger{n="1"}[1s])`:          1e-12,
	`quantile by (writer) (0.5, ledger)`:        1e-12,
	`sum(count_over_time(ledger[1s])) by (n)+0`: 0,
}

// TestLiveKill kills the server again and again under subscribed clients and writes, each time as soon as a
// sample that corrects closed steps is acknowledged: no step is missing to any client in the end, none came twice
// in a revision, and each is what the query API says, that correction too.
func TestLiveKill(t *testing.T) {
	addr, dir := freeAddr(t), t.TempDir()
	s := serveAt(t, addr, dir)
	w := &liveWriter{base: s.base, rnd: rand.New(rand.NewPCG(1, 0))}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writing, following sync.WaitGroup
	stop := make(chan struct{})
	writing.Go(func() { w.run(ctx, stop) })
	var all []*follower
	for range liveClients {
		c, err := client.New([]string{s.base}, &client.Options{MaxBackoff: 300 * time.Millisecond, Buffer: 1 << 16})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for q := range liveQueries {
			sub, err := c.Subscribe(client.Query{Expr: q, Step: liveStep})
			if err != nil {
				t.Fatal(err)
			}
			f := newFollower(q, liveStep)
			all = append(all, f)
			following.Go(func() { f.follow(ctx, sub) })
		}
	}
	for range rounds(3, 200) {
		awaitStep(t, all, time.Now().Add(time.Duration(w.rnd.IntN(1000))*time.Millisecond))
		w.correct(ctx)
		s.kill(t)
		s = serveAt(t, addr, dir)
	}
	awaitStep(t, all, time.Now().Add(2*time.Second))
	close(stop)
	writing.Wait()
	end := time.Now().Truncate(liveStep)
	awaitStep(t, all, end)
	answers := map[string]map[string]float64{}
	for _, f := range all {
		want := func(ms int64) (got map[string]float64, err error) {
			key := fmt.Sprint(f.query, ms)
			if answers[key] == nil {
				answers[key], err = instant(ctx, s.base, f.query, ms)
			}
			return answers[key], err
		}
		await(t, f.query, func() error { return f.check(end, liveQueries[f.query], want) })
	}
	cancel()
	following.Wait()
	s.terminate(t)
}

// liveWriter writes samples as they are due; what it could not write while the server was down comes late.
type liveWriter struct {
	base string
	rnd  *rand.Rand
	mu   sync.Mutex // one request at a time
}

func (w *liveWriter) run(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.put(ctx, now.UnixMilli()/50*50, 0)
		case <-stop:
			return
		}
	}
}

// correct changes samples of closed steps, and returns once that is acknowledged.
func (w *liveWriter) correct(ctx context.Context) {
	w.put(ctx, time.Now().Add(-1500*time.Millisecond).UnixMilli()/50*50, 1000)
}

// put writes a sample a series, again until it is acknowledged. Values grow with time, but for what is added.
func (w *liveWriter) put(ctx context.Context, ms int64, add float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var raw []byte
	for n := range liveSeries {
		raw = field(raw, 1, encodeSeries(0, n, float64(ms%1e8)*float64(n+1)/7+add, ms))
	}
	body := snappy.Encode(nil, raw)
	for ctx.Err() == nil {
		if status, _, err := post(ctx, http.DefaultClient, w.base, v1, body); err == nil && status/100 == 2 {
			return
		}
		time.Sleep(10 * time.Millisecond) // between two tries; the server may be down
	}
}

// follower keeps what comes of a subscription.
type follower struct {
	query   string
	step    time.Duration
	patient bool // steps may fail for a while, if they come in the end
	mu      struct {
		sync.Mutex
		first, last int64
		steps       map[int64]client.Update // in the newest revision, by Unix ms
		err         error
	}
}

func newFollower(q string, step time.Duration) *follower {
	f := &follower{query: q, step: step}
	f.mu.steps = map[int64]client.Update{}
	return f
}

var errLive = errors.New("wrong update")

func (f *follower) follow(ctx context.Context, sub *client.Subscription) {
	takeAll(ctx, sub, &f.mu, &f.mu.err, f.takeLocked)
}

// takeAll hands the updates of a subscription to take, under mu, until ctx ends or there is
// an error, which is joined to failed.
func takeAll(ctx context.Context, sub *client.Subscription, mu sync.Locker, failed *error, take func(*client.Update) error) {
	for u, err := range sub.All(ctx) {
		if ctx.Err() != nil {
			return
		}
		mu.Lock()
		if err == nil {
			err = take(&u)
		}
		*failed = errors.Join(*failed, err)
		mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (f *follower) takeLocked(u *client.Update) error {
	ms := u.Time.UnixMilli()
	was, known := f.mu.steps[ms]
	switch {
	case u.Err != nil && f.patient && passing(u.Err):
		return nil
	case u.Err != nil:
		return u.Err
	case u.Dropped != nil:
		return fmt.Errorf("%w: %d steps dropped from %v to %v", errLive, u.Dropped.Count, u.Dropped.From, u.Dropped.To)
	case u.Stale != nil:
		return nil
	case u.Rev == 0 && f.mu.last != 0 && ms != f.mu.last+f.step.Milliseconds():
		return fmt.Errorf("%w: step %d after %d", errLive, ms, f.mu.last)
	case u.Rev > 0 && known && u.Rev <= was.Rev:
		return fmt.Errorf("%w: step %d in revision %d after %d", errLive, ms, u.Rev, was.Rev)
	case u.Rev == 0:
		if f.mu.last = ms; f.mu.first == 0 {
			f.mu.first = ms
		}
	}
	f.mu.steps[ms] = *u
	return nil
}

// awaitStep waits until all have the step at a time.
func awaitStep(t *testing.T, all []*follower, at time.Time) {
	t.Helper()
	for _, f := range all {
		await(t, f.query, func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.mu.err != nil {
				t.Fatalf("%s: %v", f.query, f.mu.err)
			}
			if f.mu.last < at.Add(-f.step).UnixMilli() {
				return fmt.Errorf("the step at %v does not come after %d", at, f.mu.last)
			}
			return nil
		})
	}
}

// check compares every step up to a time, in its newest revision, with what is wanted of it: the same but for a
// relative error.
func (f *follower) check(end time.Time, tolerance float64, wanted func(ms int64) (map[string]float64, error)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.err != nil {
		return f.mu.err
	}
	for ms := f.mu.first; ms <= end.UnixMilli(); ms += f.step.Milliseconds() {
		want, err := wanted(ms)
		if err != nil {
			return err
		}
		u := f.mu.steps[ms]
		if len(u.Samples) != len(want) {
			return fmt.Errorf("%w: step %d, revision %d, has %d series, query says %d", errLive, ms, u.Rev, len(u.Samples), len(want))
		}
		for _, x := range u.Samples {
			v, ok := want[fmt.Sprint(x.Labels)]
			if !ok || math.Abs(v-x.Value) > tolerance*math.Abs(v) {
				return fmt.Errorf("%w: step %d, revision %d: %v is %v, query says %v", errLive, ms, u.Rev, x.Labels, x.Value, v)
			}
		}
	}
	return nil
}

// instant asks the query API, by label set.
func instant(ctx context.Context, base, expr string, ms int64) (map[string]float64, error) {
	var vector []struct {
		Metric map[string]string
		Value  [2]json.RawMessage
	}
	at := strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64)
	if err := query(ctx, base, "query", url.Values{"query": {expr}, "time": {at}}, &vector); err != nil {
		return nil, err
	}
	out := make(map[string]float64, len(vector))
	for _, s := range vector {
		v, err := strconv.ParseFloat(strings.Trim(string(s.Value[1]), `"`), 64)
		if err != nil {
			return nil, err
		}
		out[fmt.Sprint(s.Metric)] = v
	}
	return out, nil
}
