package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// liveNode is a hub over one node of a trio, and the newest values of each step.
type liveNode struct {
	*live.Hub
	clock *clock.Manual
	subs  map[string]*live.Subscription
	steps map[string]map[int64]string
	ids   map[string]map[uint32]string
	drops []live.Dropped
}

func (c *trio) live(name string, at time.Time, queries ...string) *liveNode {
	c.t.Helper()
	n := c.nodes[name].node
	l := &liveNode{clock: clock.NewManual(at), subs: map[string]*live.Subscription{}, steps: map[string]map[int64]string{}, ids: map[string]map[uint32]string{}}
	q, err := query.New(n.Reader(), &query.Options{Clock: l.clock})
	if err != nil {
		c.t.Fatal(err)
	}
	if l.Hub, err = live.New(n.Feeder(), n.FeedReader(), q, &live.Options{Clock: l.clock, Horizon: time.Hour}); err != nil {
		c.t.Fatal(err)
	}
	for _, text := range queries {
		s, err := l.Subscribe(c.t.Context(), live.Request{Query: text})
		if err != nil {
			c.t.Fatal(err)
		}
		l.subs[text], l.steps[text], l.ids[text] = s, map[int64]string{}, map[uint32]string{}
	}
	return l
}

func (l *liveNode) close(t testing.TB) {
	for _, s := range l.subs {
		s.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// poll notes the steps that have come.
func (l *liveNode) poll() (err error) {
	for text, s := range l.subs {
		for _, ev := range s.Poll(nil) {
			switch ev.Kind {
			case live.SeriesKind:
				for _, d := range ev.Series {
					l.ids[text][d.ID] = d.Labels.String()
				}
			case live.DataKind:
				var rows []string
				for _, v := range ev.Step.Values {
					rows = append(rows, fmt.Sprintf("%s %.9g", l.ids[text][v.Series], v.V))
				}
				slices.Sort(rows)
				l.steps[text][ev.Step.T] = fmt.Sprint(rows)
			case live.ErrorKind:
				err = ev.Err
			case live.DroppedKind:
				l.drops = append(l.drops, ev.Dropped)
			}
		}
	}
	return err
}

// once reads samples mode, in which nothing may be missing or, here, come twice.
func once(t testing.TB, s *live.Subscription, names map[uint32]string, seen map[string]bool) {
	t.Helper()
	for _, ev := range s.Poll(nil) {
		for _, d := range ev.Series {
			names[d.ID] = d.Labels.String()
		}
		if ev.Kind == live.DroppedKind {
			t.Errorf("samples dropped: %+v", ev.Dropped)
		}
		if ev.Kind != live.DataKind {
			continue
		}
		for _, v := range ev.Step.Values {
			k := fmt.Sprint(names[v.Series], " ", ev.Step.T)
			if seen[k] {
				t.Errorf("%s came twice", k)
			}
			seen[k] = true
		}
	}
}

// servers are the nodes that a feed of this node comes from.
func (n *Node) servers() (out []string) {
	n.feeds.mu.Lock()
	defer n.feeds.mu.Unlock()
	for j := range n.feeds.mu.open {
		j.mu.Lock()
		for _, x := range j.mu.parts {
			if !x.ended() && !slices.Contains(out, x.node) {
				out = append(out, x.node)
			}
		}
		j.mu.Unlock()
	}
	return out
}

// liveRounds writes, and waits until all who follow have it.
type liveRounds struct {
	c       *trio
	hubs    []*liveNode // of which the last knows everything
	queries []string
	samples *live.Subscription // of the first
	names   map[uint32]string
	seen    map[string]bool
	at      int64 // of the last step
}

func (r *liveRounds) run(what, writer string) {
	t := r.c.t
	t.Helper()
	r.at++
	r.c.mustWrite(writer, r.at, 1)
	sum := 0.0
	for s := range 10 {
		sum += float64(s) + float64(r.at)/7
	}
	tries, now := 0, r.at
	r.c.await(what, func() error {
		if tries++; tries%10 == 1 { // a correction comes with the next step
			now++
			for _, l := range r.hubs {
				l.clock.Advance(time.Second)
			}
		}
		once(t, r.samples, r.names, r.seen)
		for _, l := range r.hubs {
			if err := l.poll(); err != nil {
				return err
			}
		}
		return r.come(fmt.Sprintf("[{} %.9g]", sum))
	})
	r.at = now
}

// come tells whether the last round's samples have come, and the steps with them.
func (r *liveRounds) come(sum string) error {
	for s := range 10 {
		if k := fmt.Sprintf("{__name__=\"m\", s=\"%d\"} %d", s, r.at*1000); !r.seen[k] {
			return fmt.Errorf("%s has not come; there are %d", k, len(r.seen))
		}
	}
	last := r.hubs[len(r.hubs)-1]
	if got := last.steps[`sum(m)`][r.at*1000]; got != sum {
		return fmt.Errorf("the last has %s, want %s", got, sum)
	}
	for i, l := range r.hubs {
		for _, text := range r.queries {
			if a, b := l.steps[text][r.at*1000], last.steps[text][r.at*1000]; a != b || a == "" {
				return fmt.Errorf("%s at %d: %d has %s, the last %s", text, r.at, i, a, b)
			}
		}
	}
	return nil
}

// TestLiveElsewhere: a node without shards serves live queries equal to those of the others,
// also while what it gets its feeds from restarts, and when a shard comes to it.
func TestLiveElsewhere(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	const base = 1_000_000
	c.mustWrite("n1", base, 1)
	c.join("n4", "n1")
	queries := []string{`m`, `sum(m)`, `sum by (s) (max_over_time(m[10s:1s]))`} // the last is stepped
	n4 := c.live("n4", time.Unix(base, 0), queries...)
	defer n4.close(t)
	c.await("a feed from another node", func() error {
		if s := c.nodes["n4"].node.servers(); len(s) == 0 {
			return errors.New("none")
		}
		return n4.poll()
	})
	server := c.nodes["n4"].node.servers()[0]
	var witness string // holds everything, and does not restart
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != server {
			witness = name
		}
	}
	hubs := []*liveNode{n4, c.live(witness, time.Unix(base, 0), queries...)}
	defer hubs[1].close(t)
	samples, err := n4.Subscribe(t.Context(), live.Request{Query: `m`, Samples: true})
	if err != nil {
		t.Fatal(err)
	}
	rounds := &liveRounds{c: c, hubs: hubs, queries: queries, samples: samples, seen: map[string]bool{}, names: map[uint32]string{}, at: base}
	round := func(what string) { t.Helper(); rounds.run(what, witness) }
	round("the first")
	round("the second")
	c.stop(server)
	round("without the serving node")
	c.start(server)
	round("with it again")
	if err := c.nodes[witness].node.MoveShard(t.Context(), 0, server, "n4"); err != nil {
		t.Fatal(err)
	}
	round("while a shard moves")
	c.planEnds(PlanDone)
	round("after the move")
	if err := c.nodes[witness].node.MoveShard(t.Context(), 0, "n4", server); err != nil {
		t.Fatal(err)
	}
	c.planEnds(PlanDone)
	round("after the move back")
	samples.Close()
	for _, l := range hubs {
		if len(l.drops) > 0 {
			t.Errorf("dropped %v", l.drops)
		}
	}
	if len(rounds.seen) == 0 {
		t.Error("no sample came")
	}
	n4.close(t)
	for name, m := range c.nodes {
		c.await("no feed left open at "+name, func() error {
			if n := m.node.served.count(); n > 0 {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
	}
}

// TestLiveAfterRestart: what is computed from the samples at a node that has just started has
// all that was acknowledged before, though the node has not heard of it yet.
func TestLiveAfterRestart(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 5 * time.Second})
	c.stop("n1")
	c.mustWrite("n2", 0, 1)
	c.net.isolate(c.peers["n1"], true)
	c.start("n1")
	n := c.nodes["n1"].node
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}
	feed, err := n.Feeder().Subscribe(t.Context(), &model.FeedRequest{Matchers: ms})
	if err != nil {
		t.Fatal(err)
	}
	defer feed.Close()
	req := &model.SelectRequest{MinT: math.MinInt64, MaxT: math.MaxInt64, Matchers: ms}
	if sel, err := model.Select(t.Context(), n.FeedReader(), req); !errors.Is(err, model.ErrUnavailable) {
		t.Errorf("while it hears of nobody: got %v, %v", sel, err)
	}
	c.net.isolate(c.peers["n1"], false)
	c.await("a read", func() error {
		sel, err := model.Select(t.Context(), n.FeedReader(), req)
		if err != nil {
			return err
		}
		defer sel.Close()
		if len(sel.Series) != 10 {
			t.Errorf("got %d series", len(sel.Series))
		}
		return nil
	})
}

// keeper reads a feed of a node as one who keeps all of it must: after a Reset it begins anew with a
// Select, for a busy machine may have a node take another's silence for its end.
type keeper struct {
	c     *trio
	n     *Node
	req   *model.FeedRequest
	feed  model.Feed
	batch model.FeedBatch
	names map[uint32]string
	came  map[string]int  // samples that the feed brought
	read  map[string]bool // samples that a Select showed and the feed did not bring
	reset bool            // told by the last Poll
}

// keep opens a feed of the series m.
func (c *trio) keep(n *Node) *keeper {
	f := &keeper{c: c, n: n, req: &model.FeedRequest{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}},
		names: map[uint32]string{}, came: map[string]int{}, read: map[string]bool{}}
	c.await("a feed", func() (err error) {
		f.feed, err = n.Feeder().Subscribe(c.t.Context(), f.req)
		return err
	})
	return f
}

func (f *keeper) poll() {
	f.c.t.Helper()
	b := &f.batch
	if err := f.feed.Poll(b); err != nil || b.Lost > 0 {
		f.c.t.Fatalf("%v, lost %d", err, b.Lost)
	}
	for _, s := range b.Series {
		f.names[s.ID] = s.Labels.String()
	}
	for _, s := range b.Samples {
		if f.names[s.Series] == "" {
			f.c.t.Fatalf("series %d was not told", s.Series)
		}
		key := fmt.Sprint(f.names[s.Series], s.T)
		if f.came[key]++; f.came[key] > 1 {
			f.c.t.Fatalf("%s came again", key)
		}
	}
	f.reset = b.Reset
}

// look reads what there is from a time on, and again until nothing was reset meanwhile. What
// it shows the feed has brought, unless it was reset or says that it lacks something.
func (f *keeper) look(from int64) {
	f.c.t.Helper()
	for again := true; again; again = f.reset {
		var sel *model.Selection
		f.c.await("a read", func() (err error) {
			sel, err = model.Select(f.c.t.Context(), f.n.FeedReader(), &model.SelectRequest{MinT: from, MaxT: math.MaxInt64, Matchers: f.req.Matchers})
			return err
		})
		anew := f.reset
		f.poll()
		for _, s := range sel.Series {
			var cols model.Columns
			if err := s.Read(&cols); err != nil {
				f.c.t.Fatal(err)
			}
			for _, at := range cols.T {
				switch key := fmt.Sprint(s.Labels().String(), at); {
				case f.came[key] > 0 || f.read[key]:
				case anew || f.reset:
					f.read[key] = true
				case !f.batch.Lacks:
					f.c.t.Fatalf("the feed was not given %s", key)
				}
			}
		}
		sel.Close()
	}
}

// hasAll tells whether all that was acknowledged from a time on has come, or was read.
func (f *keeper) hasAll(from int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	for key, samples := range f.c.acked {
		for at := range samples {
			if k := fmt.Sprint(key, at); at >= from && f.came[k] == 0 && !f.read[k] {
				return fmt.Errorf("%s did not come", k)
			}
		}
	}
	return nil
}

// TestFeedElsewhere: what a Select shows the feed has been given, and what comes after it
// the feed brings: each sample once, with its labels told before; too many series are told.
func TestFeedElsewhere(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	c.await("a first write", func() error { return c.write("n1", 0, 3) })
	c.join("n4", "n1")
	f := c.keep(c.nodes["n4"].node)
	defer f.feed.Close()
	stop := make(chan struct{})
	wrote := make(chan error, 1)
	go func() {
		for i := int64(3); ; i++ {
			select {
			case <-stop:
				wrote <- nil
				return
			default:
			}
			if err := c.write("n2", i, 1); err != nil && !errors.Is(err, model.ErrUnavailable) {
				wrote <- err
				return
			}
		}
	}()
	for range 20 {
		f.look(3000)
	}
	close(stop)
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	c.await("all samples", func() error {
		if f.poll(); f.reset {
			f.look(3000)
		}
		return f.hasAll(3000)
	})
	few := *f.req
	few.MaxSeries = 1
	c.await("more series than allowed", func() error {
		feed, err := f.n.Feeder().Subscribe(t.Context(), &few)
		if err == nil {
			feed.Close()
			t.Error("more series than allowed: there is a feed")
		} else if !errors.Is(err, model.ErrLimit) {
			return err
		}
		return nil
	})
}

// TestFeedEnds: a feed ends with its context, and is closed any number of times.
func TestFeedEnds(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	c.await("a first write", func() error { return c.write("n1", 0, 1) })
	c.join("n4", "n1")
	f := c.keep(c.nodes["n4"].node)
	defer f.feed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var ended model.Feed
	c.await("a feed", func() (err error) {
		ended, err = f.n.Feeder().Subscribe(ctx, f.req)
		return err
	})
	cancel()
	for {
		err := ended.Next(t.Context(), &f.batch)
		if err == nil { // what came before
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after its context has ended: %v", err)
		}
		break
	}
	ended.Close()
	ended.Close()
}

// TestFeedGoesToWhoLags: a feed that goes on at a node that lags brings nothing twice: it
// waits there until that node has all that the feed has brought.
func TestFeedGoesToWhoLags(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	c.mustWrite("n1", 0, 1)
	c.join("n4", "n1")
	n := c.nodes["n4"].node
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}
	f, err := n.Feeder().Subscribe(t.Context(), &model.FeedRequest{Matchers: ms})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, names := map[string]int{}, map[uint32]string{}
	var b model.FeedBatch
	poll := func() error {
		if err := f.Poll(&b); err != nil {
			return err
		}
		for _, s := range b.Series {
			names[s.ID] = s.Labels.String()
		}
		for _, s := range b.Samples {
			k := fmt.Sprint(names[s.Series], " ", s.T)
			if got[k]++; got[k] > 1 {
				t.Fatalf("%s came %d times", k, got[k])
			}
		}
		return nil
	}
	first := n.servers()[0]
	p := &reading{n: n, wanted: Wanted{Level: Leader}}
	p.fail(first, nil)
	byNode, _ := p.assign([]int{0, 1, 2, 3})
	next := slices.Collect(maps.Keys(byNode))
	if len(next) != 1 || next[0] == first {
		t.Fatalf("the shards are at %s, then at %v", first, next)
	}
	lags := c.nodes[next[0]]
	hang := make(chan struct{})
	lags.hang.Store(&hang)
	release := sync.OnceFunc(func() { lags.hang.Store(nil); close(hang) })
	t.Cleanup(release)
	c.mustWrite(first, 10, 20)
	c.await("samples", func() error {
		if err := poll(); err != nil || len(got) == 200 {
			return err
		}
		return fmt.Errorf("%d came", len(got))
	})
	c.stop(first)
	for range 30 { // time for a feed that does not wait to go on
		if slices.Contains(n.servers(), next[0]) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	release()
	c.await("the feed elsewhere", func() error {
		if len(n.servers()) == 0 {
			return errors.New("it has no part")
		}
		return poll()
	})
	c.start(first)
	at := int64(100)
	c.await("what is written then", func() error {
		c.mustWrite(first, at, 1) // again and again: the feed may move once more, and lack some
		at++
		if err := poll(); err != nil || len(got) > 200 {
			return err
		}
		return fmt.Errorf("%d came", len(got))
	})
}

// TestAppliedElsewhere: a subscriber at one node that shows the token of a write at another
// is served the write.
func TestAppliedElsewhere(t *testing.T) {
	c := newTrio(t, Options{CommitTimeout: 10 * time.Second})
	const base = 1_000_000
	c.mustWrite("n1", base-10, 1)
	c.join("n4", "n1")
	for i, name := range []string{"n2", "n3", "n4"} {
		at := base + int64(i)
		b := &model.Batch{T: []int64{at * 1000}, V: []float64{float64(at)}}
		b.Series = []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("__name__", "token")), To: 1}}
		res, err := c.nodes["n1"].db.Append(t.Context(), b)
		if err != nil || len(res.Applied) == 0 {
			t.Fatalf("%v, applied %v", err, res.Applied)
		}
		if _, _, err := c.nodes[name].node.Sync(t.Context(), Wanted{Level: Stale, Applied: res.Applied, Held: true}); err != nil {
			t.Fatal(err)
		}
		l := c.live(name, time.Unix(at, int64(900*time.Millisecond)))
		s, err := l.Subscribe(t.Context(), live.Request{Query: "token", Backfill: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		c.await("the step at "+name, func() error {
			for _, ev := range s.Poll(nil) {
				if ev.Kind == live.ErrorKind {
					return ev.Err
				}
				if ev.Kind == live.DataKind && ev.Step.T == at*1000 {
					if ev.Step.Rev != 0 || len(ev.Step.Values) != 1 || ev.Step.Values[0].V != float64(at) {
						t.Fatalf("%s: %+v", name, ev.Step)
					}
					return nil
				}
			}
			return errors.New("not yet")
		})
		s.Close()
		l.close(t)
	}
}

// TestAsk: a node asks the metadata's leader, wherever that is.
func TestAsk(t *testing.T) {
	c := newTrio(t, Options{})
	for name, m := range c.nodes {
		m.node.Answer(func(_ context.Context, path, query string) (int, []byte) { return 404, []byte(name + path + query) })
	}
	for name, m := range c.nodes {
		c.await("an answer at "+name, func() error {
			status, body, err := m.node.AskMetadataLeader(t.Context(), "/p", "a=b")
			if err != nil {
				return err
			}
			leader := c.nodes[string(body[:2])]
			if status != 404 || string(body[2:]) != "/pa=b" || leader == nil || !leader.node.LeadsMetadata() {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
}

// TestAskAcrossFailover: one question outlives the leader that would have answered it.
func TestAskAcrossFailover(t *testing.T) {
	c := newTrio(t, Options{})
	leader, asker := "", ""
	c.await("a leader that all know", func() error {
		for name, m := range c.nodes {
			if m.node.Ready() != nil {
				return errors.New("not yet")
			}
			m.node.Answer(func(context.Context, string, string) (int, []byte) { return 200, []byte(name) })
			if m.node.LeadsMetadata() {
				leader = name
			} else {
				asker = name
			}
		}
		if leader == "" {
			return errors.New("none")
		}
		return nil
	})
	c.stop(leader)
	if _, body, err := c.nodes[asker].node.AskMetadataLeader(t.Context(), "/p", ""); err != nil || string(body) == leader {
		t.Errorf("got %s %v", body, err)
	}
}

func sampleFeedBatch() *model.FeedBatch {
	h := &histogram.Histogram{Schema: 1, Count: 3, Sum: 2.5, PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}}, PositiveBuckets: []int64{1, 1}}
	return &model.FeedBatch{Series: []model.FeedSeries{{ID: 7, Labels: labels.FromStrings("a", "b")}},
		Samples: []model.FeedSample{{Series: 7, T: 5, ST: 1, V: -2.5}, {Series: 7, T: -9, Hist: &model.HistogramSample{T: -9, ST: 0, H: h}}},
		Applied: model.Applied{{Shard: 3, Index: 9}}, Lost: 4, Reset: true, Cut: math.MinInt64}
}

// TestFeedBatch: a batch comes over as it was; what has no room is lost, and counted.
func TestFeedBatch(t *testing.T) {
	want := sampleFeedBatch()
	decode := func(room int) *model.FeedBatch {
		var got model.FeedBatch
		d := &decoder{b: putFeedBatch(nil, want, room)}
		if d.feedBatch(&got); d.end() != nil {
			t.Fatal(d.end())
		}
		return &got
	}
	if got := decode(1 << 20); !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
	if got := decode(1); len(got.Samples) != 1 || got.Lost != 5 {
		t.Fatalf("%+v", got)
	}
}

func FuzzFeedBatch(f *testing.F) {
	f.Add(putFeedBatch(nil, sampleFeedBatch(), 1<<20))
	f.Add(putFeedBatch(nil, &model.FeedBatch{Cut: 5}, 1<<20))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x, y model.FeedBatch
		d := &decoder{b: b}
		if d.feedBatch(&x); d.end() != nil {
			return
		}
		again := &decoder{b: putFeedBatch(nil, &x, math.MaxInt)}
		if again.feedBatch(&y); again.end() != nil || len(y.Samples) != len(x.Samples) || len(y.Series) != len(x.Series) || y.Lost != x.Lost || y.Cut != x.Cut || y.Reset != x.Reset {
			t.Fatalf("%+v, want %+v", y, x)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(putBytes(putUvarints(nil, 200), "{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if status, _, err := parseAnswer(b); err == nil && (status < 100 || status > 599) {
			t.Fatalf("status %d", status)
		}
	})
}
