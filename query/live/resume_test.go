package live_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// TestResume: clients that come back after the process has gone, or after a while away,
// miss no step and get none twice in one revision.
func TestResume(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 21))
			r := newRig(t, live.Options{Delay: 200 * time.Millisecond, Horizon: 5 * time.Second, Ring: 8})
			g := &generator{rng: rng, val: map[string]float64{}}
			now := start.UnixMilli()
			var clients []*client
			for _, q := range []string{`m`, `sum by (g) (rate(m[5s]))`, `topk(2, n)`, `max_over_time(n[3s])`} {
				for range 2 {
					c := r.subscribe(live.Request{Query: q, Backfill: 5 * time.Second})
					c.until(now - 1000)
					clients = append(clients, c)
				}
			}
			away := map[*client]bool{}
			back := func(c *client) {
				fresh := r.subscribe(live.Request{Query: c.Info().Query, After: c.lastT})
				// Numbers are told anew; the steps that it has it must not get again.
				c.Subscription, c.names, c.stale = fresh.Subscription, fresh.names, fresh.stale
			}
			for range 30 {
				now += 1000
				r.append(g.batch(now, false))
				r.clock.Advance(time.Second)
				switch rng.IntN(5) {
				case 0:
					r.close()
					r.clock.Advance(time.Duration(rng.IntN(4)) * time.Second)
					r.open()
					for _, c := range clients {
						if !away[c] {
							back(c)
						}
					}
				case 1:
					c := clients[rng.IntN(len(clients))]
					c.Close()
					away[c] = true
				case 2:
					for c := range away {
						back(c)
						delete(away, c)
					}
				}
				now = r.clock.Now().UnixMilli()
				for _, c := range clients {
					if away[c] {
						continue
					}
					c.until(now - 1000)
				}
			}
			for c := range away {
				back(c)
			}
			for _, c := range clients {
				c.until(now - 1000)
				for at := start.UnixMilli() - 5000; at <= now-1000; at += 1000 {
					if c.steps[at] == nil {
						t.Errorf("%s: step %d is missing", c.Info().Query, at)
					}
				}
				c.checkLast()
			}
		})
	}
}

// TestResumeCorrects: whatever was corrected while a client was away comes when it is back,
// where another evaluation has been going on and where there was none, and no revision
// of a step comes twice: in the end it has all as an instant query says.
func TestResumeCorrects(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 33))
			ring := []int{6, 256}[seed%2]
			r := newRig(t, live.Options{Delay: 200 * time.Millisecond, Horizon: 5 * time.Second, Ring: ring, MaxBackfill: time.Minute})
			g := &generator{rng: rng, val: map[string]float64{}, late: 4000}
			now := start.UnixMilli()
			queries := []string{`m`, `sum by (g) (rate(m[5s]))`, `topk(2, n)`, `max_over_time(n[3s])`}
			nodes := []*rig{r, r.beside()}
			defer func() { nodes[1].leave() }()
			var steady, clients []*client // those of steady keep their evaluations going
			connect := func() {
				for _, q := range queries {
					steady = append(steady, nodes[0].subscribe(live.Request{Query: q}))
				}
			}
			connect()
			for _, q := range queries {
				clients = append(clients, r.subscribe(live.Request{Query: q, Backfill: 3 * time.Second}))
				clients[len(clients)-1].until(now - 1000)
			}
			pass := func() {
				now += 1000
				r.append(g.batch(now, false))
				r.clock.Advance(time.Second)
				for _, c := range steady {
					c.until(now - 1000)
				}
			}
			for range 15 {
				for range 1 + rng.IntN(2) {
					pass()
					for _, c := range clients {
						c.until(now - 1000)
					}
				}
				for _, c := range clients {
					c.Close()
				}
				for range rng.IntN(9) {
					pass()
				}
				r.clock.Advance(10 * time.Millisecond) // to connect anew takes as long, at least
				at := nodes[rng.IntN(2)]
				if at != r { // whose evaluations begin with the clients
					at.leave()
					nodes[1] = r.beside()
					at = nodes[1]
				}
				for _, c := range clients {
					fresh := at.subscribe(live.Request{Query: c.Info().Query, After: c.lastT})
					c.Subscription, c.names, c.stale = fresh.Subscription, fresh.names, fresh.stale
					c.r = at
					c.until(now - 1000)
				}
				pass()
				for _, c := range clients {
					c.until(now - 1000)
					c.settle()
					for at := start.UnixMilli() - 3000; at <= now-1000; at += 1000 {
						if c.steps[at] == nil {
							t.Errorf("%s: step %d is missing", c.Info().Query, at)
						}
					}
				}
				if t.Failed() {
					t.Fatal("stopped at the first wrong state")
				}
			}
		})
	}
}

// TestResumeWhereTheClockIsBehind: what was corrected comes with higher revisions also from
// a node whose clock is behind.
func TestResumeWhereTheClockIsBehind(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1})
	now := start.UnixMilli()
	c := r.subscribe(live.Request{Query: `m`})
	for i := range 20 {
		now += 1000
		r.append(gauge("a", now, float64(i)))
		if i == 18 {
			r.append(gauge("b", start.UnixMilli()+1000, 1))
		}
		r.clock.Advance(time.Second)
		c.until(now)
	}
	if c.fixed == 0 {
		t.Fatal("nothing was corrected")
	}
	seen := int64(0)
	for at, s := range c.steps {
		if s.Rev > 0 {
			seen = max(seen, at+int64(s.Rev))
		}
	}
	c.Close()
	r.append(gauge("c", start.UnixMilli()+1000, 1))
	slow := *r
	slow.clock = clock.NewManual(r.clock.Now().Add(-10 * time.Second))
	slow.opts.Clock = slow.clock
	behind := slow.beside()
	defer behind.leave()
	fresh := behind.subscribe(live.Request{Query: `m`, After: c.lastT, Seen: seen})
	c.Subscription, c.names, c.r = fresh.Subscription, fresh.names, behind
	for range 12 {
		behind.clock.Advance(time.Second)
	}
	c.settle()
}

// settle reads until every step is as an instant query says: what there is to correct
// may be left for another turn.
func (c *client) settle() {
	c.r.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		why := ""
		for at := range c.steps {
			if why = c.wrong(at); why != "" {
				break
			}
		}
		if why == "" {
			return
		}
		evs := c.Poll(nil)
		for _, ev := range evs {
			c.take(ev)
		}
		if len(evs) > 0 {
			continue
		}
		select {
		case <-c.r.wake:
		case <-deadline:
			c.r.t.Error(why)
			return
		}
	}
}

// beside returns another hub over the same data, as a node of its own.
func (r *rig) beside() *rig {
	r.t.Helper()
	o := r.opts
	other := &rig{t: r.t, db: r.db, q: r.q, opts: r.opts, clock: r.clock, wake: make(chan struct{}, 1)}
	var err error
	if other.hub, err = live.New(r.db, r.db, r.q, &o); err != nil {
		r.t.Fatal(err)
	}
	return other
}

func (r *rig) leave() {
	if err := r.hub.Close(); err != nil {
		r.t.Error(err)
	}
}

// checkLast compares the newest step, whose numbers are those of this connection.
func (c *client) checkLast() { c.check(c.lastT) }

// TestResumeTooLate: what is beyond the bound is told as dropped, and the rest comes.
func TestResumeTooLate(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1, MaxBackfill: 10 * time.Second})
	now := start.UnixMilli()
	c := r.subscribe(live.Request{Query: `m`, After: now - 60_000})
	c.strict = false
	c.until(now)
	if want := []live.Dropped{{Count: 49, From: now - 59_000, To: now - 11_000}}; fmt.Sprint(c.drops) != fmt.Sprint(want) {
		t.Errorf("dropped %v, want %v", c.drops, want)
	}
	if len(c.steps) != 11 || c.steps[now-10_000] == nil {
		t.Errorf("%d steps", len(c.steps))
	}
}

// TestSlowSubscriber: who never polls holds up nobody, and is told what it missed.
func TestSlowSubscriber(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1, Ring: 8, Horizon: -1})
	slow := r.subscribe(live.Request{Query: `m`})
	slow.strict = false
	fast := r.subscribe(live.Request{Query: `m`})
	now := start.UnixMilli()
	step := func() {
		now += 1000
		r.append(gauge("a", now, float64(now)))
		r.clock.Advance(time.Second)
		fast.until(now)
	}
	step()
	slow.until(now)
	first := now
	for range 50 {
		step()
	}
	slow.until(now)
	if want := []live.Dropped{{Count: 49, From: first + 1000, To: now - 1000}}; fmt.Sprint(slow.drops) != fmt.Sprint(want) {
		t.Errorf("dropped %v, want %v", slow.drops, want)
	}
	slow.check(now)
	if len(fast.steps) != 51 {
		t.Errorf("the other got %d steps", len(fast.steps))
	}
	step()
	slow.until(now)
	slow.check(now)
}

// TestSlowSubscriberIsCorrected: a correction that has left the ring before a subscriber came
// for it comes all the same, before what is new.
func TestSlowSubscriberIsCorrected(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1, Ring: 8})
	slow := r.subscribe(live.Request{Query: `m`})
	slow.strict = false
	fast := r.subscribe(live.Request{Query: `m`})
	now := start.UnixMilli()
	first := now + 1000
	for i := range 30 {
		now += 1000
		r.append(gauge("a", now, float64(i)))
		if i == 3 {
			r.append(gauge("b", first, 7))
		}
		r.clock.Advance(time.Second)
		fast.until(now)
		if i == 1 {
			slow.until(now)
		}
	}
	slow.until(now)
	if len(slow.drops) != 1 || slow.fixed != 2 {
		t.Errorf("dropped %v, %d corrections", slow.drops, slow.fixed)
	}
	for at := range slow.steps {
		slow.check(at)
	}
}

func gauge(s string, t int64, v float64) *model.Batch {
	return &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("__name__", "m", "s", s)), To: 1}}, T: []int64{t}, V: []float64{v}}
}

// sampleClient gathers what samples mode gives.
type sampleClient struct {
	*live.Subscription
	names map[uint32]string
	seen  map[string]int // series, time and value
	order map[string][]float64
	n     int
}

func (c *sampleClient) poll(t *testing.T) (any bool) {
	t.Helper()
	for _, ev := range c.Poll(nil) {
		any = true
		switch ev.Kind {
		case live.SeriesKind:
			for _, d := range ev.Series {
				c.names[d.ID] = d.Labels.Get("s")
			}
		case live.DataKind:
			for _, v := range ev.Step.Values {
				name, ok := c.names[v.Series]
				if !ok {
					t.Errorf("series %d was never told", v.Series)
				}
				c.seen[fmt.Sprint(name, " ", ev.Step.T, " ", v.V)]++
				c.order[name] = append(c.order[name], v.V)
				c.n++
			}
		default:
			t.Errorf("unexpected %+v", ev)
		}
	}
	return any
}

// TestSamplesMode: each applied sample comes once, in order of application a series,
// whether a client is there from the start or joins with backfill while samples arrive.
func TestSamplesMode(t *testing.T) {
	const series, total = 5, 3000
	r := newRig(t, live.Options{MaxBackfill: time.Hour})
	join := func(req live.Request) *sampleClient {
		req.Query, req.Samples = `m`, true
		s := r.subscribe(req).Subscription
		if s.Info().Mode != live.ModeSamples {
			t.Fatalf("%+v", s.Info())
		}
		return &sampleClient{Subscription: s, names: map[uint32]string{}, seen: map[string]int{}, order: map[string][]float64{}}
	}
	early := join(live.Request{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		rng := rand.New(rand.NewPCG(5, 5))
		for i := range total {
			at := start.UnixMilli() + int64(i/2) - rng.Int64N(3)
			if _, err := r.db.Append(context.Background(), gauge(fmt.Sprint(i%series), at, float64(i))); err != nil {
				t.Error(err)
			}
		}
	}()
	clients := []*sampleClient{early}
	for early.n < total {
		if !early.poll(t) {
			<-r.wake
		}
		if n := len(clients); n < 8 && early.n > n*total/10 {
			clients = append(clients, join(live.Request{Backfill: time.Minute}))
		}
		for _, c := range clients[1:] {
			c.poll(t)
		}
	}
	wg.Wait()
	stored := map[string]bool{}
	sel, err := r.db.Select(context.Background(), &model.SelectRequest{MinT: 0, MaxT: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	defer sel.Close()
	var cols model.Columns
	for _, s := range sel.Series {
		cols.Reset()
		if err := s.Read(&cols); err != nil {
			t.Fatal(err)
		}
		for i, at := range cols.T {
			stored[fmt.Sprint(s.Labels().Get("s"), " ", at, " ", cols.V[i])] = true
		}
	}
	for i, c := range clients {
		for deadline := time.Now().Add(20 * time.Second); !covers(c.seen, stored); {
			if !c.poll(t) {
				if time.Now().After(deadline) {
					t.Fatalf("client %d has %d of %d", i, len(c.seen), len(stored))
				}
				<-r.wake
			}
		}
		for k, n := range c.seen {
			if n > 1 {
				t.Errorf("client %d: %s came %d times", i, k, n)
			}
		}
	}
	for name, vs := range early.order {
		for i := 1; i < len(vs); i++ {
			if vs[i] < vs[i-1] {
				t.Fatalf("series %s: %v comes behind %v", name, vs[i], vs[i-1])
			}
		}
	}
}

func covers(seen map[string]int, want map[string]bool) bool {
	for k := range want {
		if seen[k] == 0 {
			return false
		}
	}
	return true
}

// TestLimits: every limit has a typed error.
func TestLimits(t *testing.T) {
	r := newRig(t, live.Options{MaxQueries: 2, MaxSubscribers: 2, MaxSeries: 3, Delay: -1})
	now := start.UnixMilli()
	for s := range 5 {
		r.append(gauge(fmt.Sprint(s), now, 1))
	}
	var limit *model.LimitError
	subscribe := func(req live.Request) error {
		s, err := r.hub.Subscribe(context.Background(), req)
		if err == nil {
			t.Cleanup(s.Close)
		}
		return err
	}
	for _, q := range []string{`m[5m]`, `"x"`, `m{`, `sum(m`} {
		if err := subscribe(live.Request{Query: q}); query.KindOf(err) != query.BadData {
			t.Errorf("%s: %v", q, err)
		}
	}
	for _, req := range []live.Request{
		{Query: `m`, Step: time.Millisecond}, {Query: `m`, Step: 1500 * time.Microsecond}, {Query: `m`, After: -1}, {Query: `m`, Backfill: -1},
		{Query: `rate(m[1m])`, Samples: true}, {Query: `m offset 1m`, Samples: true},
	} {
		if err := subscribe(req); query.KindOf(err) != query.BadData {
			t.Errorf("%+v: %v", req, err)
		}
	}
	many := r.subscribe(live.Request{Query: `m`})
	few := r.subscribe(live.Request{Query: `m{s=~"[0-2]"}`, MaxSeries: 2})
	if err := subscribe(live.Request{Query: `m{s="1"}`}); !errors.Is(err, model.ErrOverloaded) || !errors.As(err, &limit) {
		t.Errorf("a third query: %v", err)
	}
	second := r.subscribe(live.Request{Query: ` m{} `}) // the same query
	if err := subscribe(live.Request{Query: `m`}); !errors.Is(err, model.ErrOverloaded) || !errors.As(err, &limit) {
		t.Errorf("a third subscriber: %v", err)
	}
	second.Close()
	now = r.clock.Now().UnixMilli() + 1000
	for s := range 5 {
		r.append(gauge(fmt.Sprint(s), now, 1))
	}
	r.clock.Advance(time.Second)
	for _, c := range []*client{many, few} {
		c.until(now)
		if c.errs == 0 || len(c.steps) > 0 {
			t.Errorf("%s: %d errors, %d steps", c.Info().Query, c.errs, len(c.steps))
		}
	}
	few.Close()
	r = newRig(t, live.Options{MaxSeries: 3})
	for s := range 5 {
		r.append(gauge(fmt.Sprint(s), now, 1))
	}
	if err := subscribe(live.Request{Query: `m`, Samples: true}); !errors.As(err, &limit) || limit.What != "series" {
		t.Errorf("samples of too many series: %v", err)
	}
}
