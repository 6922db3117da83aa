package live

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/live/client"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/shard/model"
)

// queries are those that the clients of a test choose from.
var queries = []string{
	"m", `m{i="3"}`, "sum(m)", "sum by (p) (m)", "avg by (p) (m)", "max(m)", "min by (p) (m)", "count(m)",
	"rate(m[5s])", "sum(rate(m[5s]))", "sum by (p) (rate(m[5s]))", "increase(m[10s])", "m * 2", "m > 40",
	"topk(2, m)", "quantile(0.5, m)", "sum(m) / count(m)", "max_over_time(m[2s])", "m offset 1s", "vector(7)",
}

// seen is what a subscription got: for each step its newest result.
type seen struct {
	mu    sync.Mutex
	query string
	steps map[int64]map[string]float64
	revs  map[int64]uint32
	order []int64
	fault string
}

func newSeen(query string) *seen {
	return &seen{query: query, steps: map[int64]map[string]float64{}, revs: map[int64]uint32{}}
}

// add notes a step, which must be new: by (t, rev), and the first of t in order.
func (s *seen) add(t int64, rev uint32, values map[string]float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, there := s.revs[t]
	switch {
	case there && rev <= old:
		s.fault = fmt.Sprintf("step %d came twice with rev %d", t, rev)
	case !there && rev == 0 && len(s.order) > 0 && t != s.order[len(s.order)-1]+step.Milliseconds():
		s.fault = fmt.Sprintf("step %d came after %d", t, s.order[len(s.order)-1])
	case !there && rev == 0:
		s.order = append(s.order, t)
	}
	s.steps[t], s.revs[t] = values, rev
}

const step = 200 * time.Millisecond

// equal reports whether all steps up to end are there and as the query says now.
func (s *seen) equal(f *fixture, a answers, end int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != "" {
		return s.fault
	}
	if len(s.order) == 0 || s.order[len(s.order)-1] < end {
		return "it has not come to the end"
	}
	for t, got := range s.steps {
		if t > end {
			continue
		}
		if want := a.ask(f, s.query, t); !alike(want, got) {
			return fmt.Sprintf("step %d: got %v, want %v", t, got, want)
		}
	}
	return ""
}

// answers remembers what the query says, once no more data comes.
type answers map[string]map[string]float64

func (a answers) ask(f *fixture, expr string, t int64) map[string]float64 {
	f.t.Helper()
	key := strconv.FormatInt(t, 10) + expr
	if out, ok := a[key]; ok {
		return out
	}
	res, err := f.query.Instant(context.Background(), expr, time.UnixMilli(t), query.QueryOptions{})
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Close()
	out := map[string]float64{}
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, x := range v {
			out[x.Metric.String()] = x.F
		}
	case promql.Scalar:
		out["{}"] = v.V
	}
	a[key] = out
	return out
}

func alike(a, b map[string]float64) bool {
	if len(a) != len(b) {
		return false
	}
	for k, x := range a {
		y, ok := b[k]
		if !ok || math.Abs(x-y) > 1e-12*math.Max(math.Abs(x), 1) {
			return false
		}
	}
	return true
}

// follow notes what a Go client gets.
func (s *seen) follow(t *testing.T, sub *client.Subscription) {
	for u, err := range sub.All(context.Background()) {
		if err != nil {
			return // the client is closed
		}
		if u.Dropped != nil || u.Err != nil {
			t.Errorf("%s: got %+v", s.query, u)
		}
		if u.Samples == nil {
			continue
		}
		values := map[string]float64{}
		for _, x := range u.Samples {
			values[labels.FromMap(x.Labels).String()] = x.Value
		}
		s.add(u.Time.UnixMilli(), u.Rev, values)
	}
}

// followRaw notes what a WebSocket gets.
func followRaw(c *rawClient, subs map[string]*seen) {
	names := map[string]map[uint32]string{}
	for {
		_, msg, err := c.ws.ReadMessage()
		if err != nil {
			return // it is closed
		}
		fr, err := frame.ParseFrame(msg)
		if err != nil {
			c.t.Error(err)
			return
		}
		switch fr.Type {
		case frame.Series:
			if names[fr.ID] == nil {
				names[fr.ID] = map[uint32]string{}
			}
			for _, d := range fr.Series {
				names[fr.ID][d.N] = labels.FromMap(d.Labels).String()
			}
		case frame.Data:
			values := map[string]float64{}
			for _, v := range fr.V {
				text, _ := strconv.Unquote(string(v.Raw))
				values[names[fr.ID][v.N]], _ = strconv.ParseFloat(text, 64)
			}
			subs[fr.ID].add(int64(fr.T), fr.Rev, values)
		case frame.Dropped, frame.Error:
			c.t.Errorf("got %s", msg)
		}
	}
}

// TestEveryUpdateArrives: every step, in order, equal to what the query says.
func TestEveryUpdateArrives(t *testing.T) {
	const conns, each = 50, 5
	f := newFixture(t, nil)
	var all []*seen
	var followers sync.WaitGroup
	var closers []func()
	for i := range conns {
		subs := map[string]*seen{}
		for j := range each {
			s := newSeen(queries[(i*each+j)%len(queries)])
			subs[strconv.Itoa(j)], all = s, append(all, s)
		}
		if i%2 == 0 {
			c := f.dial(PathLive, nil)
			for id, s := range subs {
				c.send(fmt.Sprintf(`{"op":"subscribe","id":%q,"query":%q,"step":%q}`, id, s.query, step))
			}
			followers.Go(func() { followRaw(c, subs) })
			closers = append(closers, func() { _ = c.ws.Close() })
			continue
		}
		c, err := client.New([]string{"http://" + f.addr}, nil)
		if err != nil {
			t.Fatal(err)
		}
		closers = append(closers, func() { _ = c.Close() })
		for _, s := range subs {
			sub, err := c.Subscribe(client.Query{Expr: s.query, Step: step})
			if err != nil {
				t.Fatal(err)
			}
			followers.Go(func() { s.follow(t, sub) })
		}
	}
	until(t, "all have subscribed", func() bool { return f.hub.Stats().Subscribers == conns*each })
	end := time.Now().Add(3 * time.Second)
	for n := 0.0; time.Now().Before(end); n++ {
		for i := range 5 {
			f.put(time.Now(), n*float64(i), "__name__", "m", "i", strconv.Itoa(i), "p", strconv.Itoa(i%2))
		}
		time.Sleep(100 * time.Millisecond) // the load
	}
	last := end.UnixMilli()/step.Milliseconds()*step.Milliseconds() - step.Milliseconds()
	a := answers{}
	for _, s := range all {
		why := ""
		until(t, "all is as queried", func() bool {
			why = s.equal(f, a, last)
			return why == "" || strings.Contains(why, "twice") || strings.Contains(why, "came after")
		})
		if why != "" {
			t.Errorf("%s: %s", s.query, why)
		}
	}
	for _, c := range closers {
		c()
	}
	followers.Wait()
}

// TestClientGoesToAnotherNode: told to go, a client resumes elsewhere, with no step
// missing and none twice.
func TestClientGoesToAnotherNode(t *testing.T) {
	store := querytest.New()
	nodes := []*fixture{newNode(t, nil, store), newNode(t, nil, store)}
	nodes[0].put(time.Now(), 1, "__name__", "m")
	c, err := client.New([]string{"http://" + nodes[0].addr, "http://user:secret@" + nodes[1].addr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(client.Query{Expr: "m", Step: step, Backfill: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	last := int64(0)
	for n := 0; n < 30; {
		u, err := sub.Next(ctx)
		if err != nil || u.Dropped != nil {
			t.Fatal(u, err)
		}
		if u.Samples == nil || u.Rev > 0 {
			continue
		}
		if at := u.Time.UnixMilli(); last != 0 && at != last+step.Milliseconds() {
			t.Fatalf("step %d came after %d", at, last)
		}
		last = u.Time.UnixMilli()
		if n++; n == 10 {
			for _, f := range nodes {
				if f.hub.Stats().Subscribers > 0 {
					if err := f.Close(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}

// TestClientIsCorrectedAfterABreak: what changes steps that a client has, while it goes
// from one node to another, reaches it.
func TestClientIsCorrectedAfterABreak(t *testing.T) {
	store := querytest.New()
	nodes := []*fixture{newNode(t, nil, store), newNode(t, nil, store)}
	nodes[0].put(time.Now().Add(-time.Minute), 1, "__name__", "m")
	c, err := client.New([]string{"http://" + nodes[0].addr, "http://" + nodes[1].addr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := newSeen("m")
	sub, err := c.Subscribe(client.Query{Expr: s.query, Step: step, Backfill: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var follower sync.WaitGroup
	follower.Go(func() { s.follow(t, sub) })
	defer follower.Wait()
	defer c.Close()
	steps := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.order)
	}
	until(t, "steps came", func() bool { return steps() > 12 })
	left := nodes[1]
	for _, f := range nodes {
		if f.hub.Stats().Subscribers == 0 {
			left = f
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	left.put(time.Now().Add(-2*time.Second), 2, "__name__", "m") // which most steps that came would show
	end := time.Now().UnixMilli()
	why := ""
	until(t, "all is as queried", func() bool { why = s.equal(left, answers{}, end); return why == "" || strings.Contains(why, "twice") })
	if why != "" {
		t.Error(why)
	}
}

// TestClientHasEachSampleOnce: samples that are late, or of a time that others had, or that
// come while the client goes from node to node, reach it once, though one lies in the future.
func TestClientHasEachSampleOnce(t *testing.T) {
	store := querytest.New()
	nodes := []*fixture{newNode(t, nil, store), newNode(t, nil, store), newNode(t, nil, store)}
	var urls []string
	for _, f := range nodes {
		urls = append(urls, "http://"+f.addr)
	}
	c, err := client.New(urls, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sub, err := c.Subscribe(client.Query{Expr: "m", Samples: true})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it is subscribed", func() bool { // and has its feed
		for _, f := range nodes {
			for _, c := range f.all() {
				if len(c.list()) > 0 {
					return true
				}
			}
		}
		return false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	base := time.UnixMilli(time.Now().UnixMilli())
	n := 0
	put := func(f *fixture, at time.Time) {
		f.put(at, float64(n), "__name__", "m", "i", strconv.Itoa(n))
		n++
	}
	got := map[float64]int{}
	read := func() {
		for len(got) < n {
			u, err := sub.Next(ctx)
			if err != nil || u.Dropped != nil || u.Err != nil {
				t.Fatal(u, err)
			}
			for _, x := range u.Samples {
				if got[x.Value]++; got[x.Value] > 1 {
					t.Fatalf("sample %v came twice", x.Value)
				}
			}
		}
	}
	put(nodes[0], base.Add(time.Hour))
	put(nodes[0], base)
	for i := range 2 {
		read()
		for _, f := range nodes {
			if f.hub.Stats().Subscribers > 0 {
				if err := f.Close(ctx); err != nil {
					t.Fatal(err)
				}
			}
		}
		put(nodes[0], base)
		put(nodes[0], base.Add(-30*time.Second))
		put(nodes[0], time.Now())
		if i == 1 {
			put(nodes[0], base.Add(time.Hour))
		}
		read()
	}
}

// TestClientTellsWhatItDropped: what is not read in time is replaced by what is newer.
func TestClientTellsWhatItDropped(t *testing.T) {
	f := newFixture(t, nil)
	c, err := client.New([]string{"http://" + f.addr}, &client.Options{Buffer: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []client.Query{{}, {Expr: "m", Step: -time.Second}, {Expr: "m", Backfill: -1}} {
		if _, err := c.Subscribe(q); !errors.Is(err, client.ErrBadOptions) {
			t.Errorf("%+v: %v", q, err) // the server would have no subscription to tell of
		}
	}
	sub, err := c.Subscribe(client.Query{Expr: "m", Samples: true})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it is subscribed", func() bool { return f.hub.Stats().Subscribers == 1 })
	const n = 50
	base := time.UnixMilli(1_700_000_000_000)
	follower := f.dial(PathLive, nil)
	follower.send(`{"op":"subscribe","id":"a","query":"m","mode":"samples"}`)
	follower.next(frame.Ack)
	for i := range n {
		ts := base.Add(time.Duration(i) * time.Second).UnixMilli()
		b := &model.Batch{T: []int64{ts, ts}, V: []float64{float64(2 * i), float64(2*i + 1)}}
		for j, x := range []string{"a", "b"} {
			b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "m", "x", x)), From: j, To: j + 1})
		}
		if _, err := f.store.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		if d := follower.next(frame.Data); len(d.V) != 2 {
			t.Fatalf("got %+v", d)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, lost := 0, int64(0)
	for newest := -1.0; newest < 2*n-1; {
		u, err := sub.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if u.Dropped != nil {
			lost += u.Dropped.Count
		}
		for _, s := range u.Samples {
			if s.Value <= newest {
				t.Errorf("got %v after %v", s.Value, newest)
			}
			newest = s.Value
			got++
		}
	}
	if lost == 0 || got+int(lost) != 2*n {
		t.Errorf("got %d and lost %d of %d samples", got, lost, 2*n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := sub.Next(ctx); !errors.Is(err, client.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Subscribe(client.Query{Expr: "m"}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"", "ftp://x", "http://", "http://u:secret@:x:y"} {
		if _, err := client.New([]string{bad}, nil); !errors.Is(err, client.ErrBadOptions) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// TestClientEndsWhatIsTooLong: the server closes a connection for a message beyond its
// limit; only the subscription that it was for ends.
func TestClientEndsWhatIsTooLong(t *testing.T) {
	f := newFixture(t, &Options{MaxMessage: 1024})
	c, err := client.New([]string{"http://" + f.addr}, &client.Options{MinBackoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	short, err := c.Subscribe(client.Query{Expr: "vector(1)"})
	if err != nil {
		t.Fatal(err)
	}
	long, err := c.Subscribe(client.Query{Expr: "vector(1)" + strings.Repeat(" + vector(1)", 200)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var told *client.Error
	if _, err := long.Next(ctx); !errors.As(err, &told) || told.Type != "limit" || !strings.Contains(told.Message, "live-max-message-bytes") {
		t.Errorf("got %v", err)
	}
	if u, err := short.Next(ctx); err != nil || len(u.Samples) != 1 {
		t.Errorf("got %+v, %v", u, err)
	}
}
