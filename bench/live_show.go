package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/bench/peers"
	"github.com/strandline-db/strandline/bench/workload"
	"github.com/strandline-db/strandline/server/live/client"
)

const (
	// showSubs is how many subscriptions a connection of showRun has.
	showSubs = 5
	// goEach is among how many connections one is a Go client; the others are bare WebSockets. It has no
	// divisor in common with the number of queries, so that both are on each of them.
	goEach = 21
)

// update names one result of a query.
type update struct {
	t   int64 // Unix milliseconds
	rev int
}

// shown is what came of one query.
type shown struct {
	query  string
	within float64 // relative error; 0: bit for bit
	mu     struct {
		sync.Mutex
		values map[update]string // JSON, the same for all bare subscribers
		labels map[int]string    // by series number
	}
}

// reading is what came to one subscription, in order.
type reading struct {
	of   *shown
	prev int64
	got  []update
	seen []client.Update // of a Go client, beside got
}

// showRun subscribes many connections to several of the distinct queries each, whose steps are as close as the
// samples, and checks everything: that each subscription gets each update that another one gets, in order, and
// that in the end each step is what the query API says.
func showRun(ctx context.Context, o *liveOptions) (err error) {
	p, done, err := o.serve(ctx, "show")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	s, err := o.stream(p.Dir, o.showLength+2*o.warm)
	if err != nil {
		return err
	}
	defer s.Close()
	all := make([]*shown, o.queries)
	for k := range all {
		all[k] = newShown(k)
	}
	readings := make([][]*reading, o.subscribers)
	for i := range readings {
		for j := range showSubs {
			readings[i] = append(readings[i], &reading{of: all[(i*showSubs+j*7)%len(all)]})
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { _, err := s.Run(gctx, p.Base); return err })
	g.Go(func() error { return s.OrVoid(o.show(gctx, p, s, readings)) })
	if err := g.Wait(); err != nil {
		return err
	}
	last := s.End().Add(-time.Second).UnixMilli()
	updates, frames, err := complete(readings, all, last)
	if err != nil {
		return err
	}
	steps, corrected, err := equalToQuery(ctx, p, all, last)
	if err != nil {
		return err
	}
	o.report(true, fmt.Sprintf("%d connections (%d of them Go clients) with %d subscriptions each, of %d queries, a step every %v",
		o.subscribers, (o.subscribers+goEach-1)/goEach, showSubs, o.queries, o.interval), "every update, in order, as query has it",
		"%d updates (%d of them corrections) of %d steps made %d frames, all of which came, in order; %d steps compared with query", updates, corrected, steps, frames, steps)
	return nil
}

// newShown is the kth query: plain selectors, and what is evaluated in each of the ways.
func newShown(k int) *shown {
	sel := fmt.Sprintf(`%s{group="g%d"}`, workload.SteadyName(k%workload.SteadyNames), k/workload.SteadyNames)
	q := &shown{within: 1e-12}
	switch k % 5 {
	case 0:
		q.query, q.within = sel, 0
	case 1:
		q.query = `sum by (region) (rate(` + sel + `[10s]))`
	case 2:
		q.query = `max by (region) (` + sel + `)`
	case 3:
		q.query = `avg_over_time(` + sel + `[5s])`
	case 4:
		q.query = `quantile by (region) (0.9, ` + sel + `)`
	}
	q.mu.values, q.mu.labels = map[update]string{}, map[int]string{}
	return q
}

// show watches until a little after the stream's end.
func (o *liveOptions) show(ctx context.Context, p *peers.Process, s *live.Stream, readings [][]*reading) error {
	time.Sleep(time.Until(s.Start.Add(2 * o.warm)))
	var bare [][]*reading
	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(watching)
	for i, rs := range readings {
		if i%goEach != 0 {
			bare = append(bare, rs)
			continue
		}
		c, err := client.New([]string{p.Base}, &client.Options{Buffer: 1 << 16})
		if err != nil {
			return err
		}
		defer c.Close()
		for _, r := range rs {
			sub, err := c.Subscribe(client.Query{Expr: r.of.query, Step: o.interval})
			if err != nil {
				return err
			}
			g.Go(func() error { return r.follow(gctx, sub, o.interval) })
		}
	}
	crowd, err := live.Gather(gctx, strings.TrimPrefix(p.Base, "http://"), len(bare), func(i int) string {
		var subs []string
		for j, r := range bare[i] {
			subs = append(subs, fmt.Sprintf(`{"id":"%d","step":"%v","query":%q}`, j, o.interval, r.of.query))
		}
		return `{"op":"set","subs":[` + strings.Join(subs, ",") + `]}`
	}, func(i int, f *live.Frame) error { return takeOf(bare[i], f, o.interval) })
	if err != nil {
		stop()
		return errors.Join(g.Wait(), err) // the first may be why
	}
	const late = 3 * time.Second // for the delay of steps and what is on its way
	select {
	case <-time.After(time.Until(s.End().Add(late))):
	case <-gctx.Done():
	}
	err = crowd.Leave()
	stop()
	return errors.Join(err, g.Wait())
}

// takeOf gives a frame to the subscription that it is of.
func takeOf(subs []*reading, f *live.Frame, step time.Duration) error {
	if f.ID == nil && string(f.Type) == "heartbeat" {
		return nil
	}
	k, err := strconv.Atoi(string(f.ID))
	if err != nil || k < 0 || k >= len(subs) {
		return fmt.Errorf("%w: of no subscription: %s", live.ErrAnswer, f.Payload)
	}
	return subs[k].take(f, step)
}

// take notes a frame of a bare subscriber.
func (r *reading) take(f *live.Frame, step time.Duration) error {
	switch string(f.Type) {
	case "data":
	case "series":
		return r.of.name(f)
	case "ack", "heartbeat":
		return nil
	default:
		return fmt.Errorf("%w: %s", live.ErrAnswer, f.Payload)
	}
	u := update{f.T, f.Rev}
	if err := r.next(u, step); err != nil {
		return err
	}
	q := r.of
	q.mu.Lock()
	defer q.mu.Unlock()
	if was, ok := q.mu.values[u]; !ok {
		q.mu.values[u] = string(f.Values)
	} else if was != string(f.Values) {
		return fmt.Errorf("%w: %s at %v is %s for one and %s for another", live.ErrAnswer, q.query, u, was, f.Values)
	}
	return nil
}

// next checks the order.
func (r *reading) next(u update, step time.Duration) error {
	if u.rev == 0 {
		if r.prev != 0 && u.t != r.prev+step.Milliseconds() {
			return fmt.Errorf("%w: %s: step %d after %d", live.ErrAnswer, r.of.query, u.t, r.prev)
		}
		r.prev = u.t
	}
	r.got = append(r.got, u)
	return nil
}

func (q *shown) name(f *live.Frame) error { return nameSeries(f, &q.mu.Mutex, q.mu.labels) }

// follow notes what a Go client's subscription gives.
func (r *reading) follow(ctx context.Context, sub *client.Subscription, step time.Duration) error {
	for u, err := range sub.All(ctx) {
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case u.Dropped != nil || u.Err != nil || len(u.Stale) > 0:
			return fmt.Errorf("%w: %s: %+v", live.ErrAnswer, r.of.query, u)
		}
		if err := r.next(update{u.Time.UnixMilli(), int(u.Rev)}, step); err != nil {
			return err
		}
		r.seen = append(r.seen, u)
	}
	return nil
}

// complete fails unless each subscription has, from its first step on up to last, all updates that there were.
// It returns how many there were, and how many frames they made.
func complete(readings [][]*reading, all []*shown, last int64) (updates, frames int, err error) {
	ordered := map[*shown][]update{}
	for _, q := range all {
		for u := range q.mu.values {
			if u.t <= last {
				ordered[q] = append(ordered[q], u)
			}
		}
		slices.SortFunc(ordered[q], update.compare)
		updates += len(ordered[q])
	}
	for i, rs := range readings {
		for _, r := range rs {
			if err := r.complete(ordered[r.of], last); err != nil {
				return 0, 0, fmt.Errorf("connection %d: %w", i, err)
			}
			for _, u := range r.got {
				if u.t <= last {
					frames++
				}
			}
		}
	}
	return updates, frames, nil
}

func (a update) compare(b update) int {
	if a.t != b.t {
		return int(a.t - b.t)
	}
	return a.rev - b.rev
}

func (r *reading) complete(ordered []update, last int64) error {
	if len(r.got) == 0 {
		return fmt.Errorf("%w: %s: nothing came", live.ErrAnswer, r.of.query)
	}
	first := r.got[0].t
	from, _ := slices.BinarySearchFunc(ordered, update{t: first}, update.compare)
	got := slices.DeleteFunc(slices.Clone(r.got), func(u update) bool { return u.t > last })
	slices.SortFunc(got, update.compare)
	if !slices.Equal(got, ordered[from:]) || r.prev < last {
		return fmt.Errorf("%w: %s: %d updates from %d on, of %d; the newest %d of %d", live.ErrAnswer, r.of.query, len(got), first, len(ordered)-from, r.prev, last)
	}
	for _, u := range r.seen {
		text, ok := r.of.mu.values[update{u.Time.UnixMilli(), int(u.Rev)}]
		if !ok { // behind last
			continue
		}
		want, err := decode(text, r.of.mu.labels)
		if err != nil {
			return err
		}
		for _, s := range u.Samples {
			if v, ok := want[keyOf(s.Labels)]; !ok || v != s.Value {
				return fmt.Errorf("%w: %s at %v: %v is %v for a Go client and %v for others", live.ErrAnswer, r.of.query, u.Time, s.Labels, s.Value, v)
			}
		}
		if len(want) != len(u.Samples) {
			return fmt.Errorf("%w: %s at %v: %d series for a Go client and %d for others", live.ErrAnswer, r.of.query, u.Time, len(u.Samples), len(want))
		}
	}
	return nil
}

// equalToQuery compares every step up to last, in its newest revision, with what the query API says.
func equalToQuery(ctx context.Context, p *peers.Process, all []*shown, last int64) (steps, corrected int, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer hc.CloseIdleConnections()
	for _, q := range all {
		newest := map[int64]int{}
		for u := range q.mu.values {
			if u.t > last {
				continue
			}
			if rev, again := newest[u.t]; again {
				corrected++
				newest[u.t] = max(rev, u.rev)
			} else {
				newest[u.t] = u.rev
			}
		}
		steps += len(newest)
		g.Go(func() error {
			for t, rev := range newest {
				got, err := decode(q.mu.values[update{t, rev}], q.mu.labels)
				if err == nil {
					err = asQuery(hc, p.Base, q.query, t, got, q.within)
				}
				if err == nil {
					err = gctx.Err()
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return steps, corrected, g.Wait()
}
