package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/golang/snappy"

	"github.com/strandline-db/strandline/server/live/client"
	"github.com/strandline-db/strandline/server/live/frame"
)

const (
	clusterStep    = 100 * time.Millisecond
	clusterWriters = 2
	clusterTick    = 50 // ms between the samples of a writer
)

// clusterQueries are followed in steps, each with the relative error that it may have.
var clusterQueries = map[string]float64{
	`ledger{writer="0"}`:                 0,
	`sum by (writer) (rate(ledger[2s]))`: 1e-12,
	`max by (n) (ledger)`:                0,
}

// TestLiveCluster kills and restarts the nodes of a cluster in turn, and one that holds no shards, under
// writes and under subscribers of all of them, of which some come back to the same node and some go to any. A
// soak pauses nodes too, and moves shards.
// In the end no step is missing to any, none came twice in a revision, and each is what the query API says;
// in samples mode each stored sample has come, as the last of its series and time, and none came twice in a row.
func TestLiveCluster(t *testing.T) {
	c := newLiveCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writing, following sync.WaitGroup
	stop := make(chan struct{})
	for _, w := range c.writers {
		writing.Go(func() { w.run(ctx, stop) })
	}
	for i := range c.bases {
		c.follow(t, ctx, &following, c.bases[i:i+1])
		c.follow(t, ctx, &following, c.bases)
	}
	for _, f := range c.samples {
		await(t, "samples", f.any)
	}
	from := time.Now().UnixMilli() // all have begun
	rnd := rand.New(rand.NewPCG(4, 0))
	order := rnd.Perm(len(c.bases))
	for round := range rounds(len(order), 200) {
		switch i, wait := order[round%len(order)], time.Duration(rnd.IntN(1000))*time.Millisecond; {
		case *soak && round%10 == 9:
			c.rebalance(t, round%20 == 9)
		case *soak && round%3 == 2:
			c.pauseLive(t, ctx, i, wait)
		default:
			c.killLive(t, ctx, i, wait)
		}
	}
	c.awaitStep(t, time.Now().Add(time.Second), all)
	close(stop)
	writing.Wait()
	c.checkSteps(t, ctx, time.Now().Truncate(clusterStep))
	c.checkSamples(t, ctx, from, time.Now().UnixMilli())
	cancel()
	following.Wait()
}

// liveCluster is three nodes and a fourth without shards, with those who write and follow.
type liveCluster struct {
	*trio
	bases   []string
	last    *strandline // the fourth
	listen  string      // for its peers
	writers []*clusterWriter
	follows []*clusterFollower
	raw     []*rawFollower
	samples []*sampleFollower
}

// clusterFollower is one whose client knows some of the nodes.
type clusterFollower struct {
	*follower
	bases []string
}

func newLiveCluster(t *testing.T) *liveCluster {
	t.Helper()
	c := &liveCluster{trio: newTrio(t, func(string) []string { return []string{"--shards", "4"} }), listen: freeAddr(t)}
	for i := range c.nodes {
		c.bases = append(c.bases, c.nodes[i].base)
	}
	addr := freeAddr(t)
	c.last = c.launchFourth(t, addr, c.listen)
	c.bases = append(c.bases, c.last.base)
	awaitReady(t, c.last.child, c.last.base+"/-/ready")
	for i := range clusterWriters {
		c.writers = append(c.writers, &clusterWriter{id: i, at: i, bases: c.bases, http: &http.Client{Timeout: clientPatience}})
	}
	return c
}

// follow subscribes by a client of some nodes, and one that is told all that comes.
func (c *liveCluster) follow(t *testing.T, ctx context.Context, following *sync.WaitGroup, bases []string) {
	t.Helper()
	cl, err := client.New(bases, &client.Options{MaxBackoff: 300 * time.Millisecond, Buffer: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	for q := range clusterQueries {
		sub, err := cl.Subscribe(client.Query{Expr: q, Step: clusterStep})
		if err != nil {
			t.Fatal(err)
		}
		f := newFollower(q, clusterStep)
		f.patient = true
		c.follows = append(c.follows, &clusterFollower{f, bases})
		following.Go(func() { f.follow(ctx, sub) })
	}
	sub, err := cl.Subscribe(client.Query{Expr: "ledger", Samples: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &sampleFollower{bases: bases}
	s.mu.got = map[string]map[int64][]uint64{}
	c.samples = append(c.samples, s)
	following.Go(func() { s.follow(ctx, sub) })
	r := newRawFollower(bases)
	c.raw = append(c.raw, r)
	following.Go(func() { r.run(ctx) })
}

// node returns one of the four.
func (c *liveCluster) node(i int) *strandline {
	if i < len(c.nodes) {
		return c.nodes[i]
	}
	return c.last
}

// killLive kills a node as soon as a sample that corrects closed steps is acknowledged, and restarts it once
// steps of after that have come to all who can do without it.
func (c *liveCluster) killLive(t *testing.T, ctx context.Context, i int, wait time.Duration) {
	t.Helper()
	c.awaitStep(t, time.Now().Add(wait), all)
	c.writers[i%clusterWriters].correct(ctx)
	c.node(i).kill(t)
	c.awaitStep(t, time.Now().Add(wait), func(bases []string) bool { return len(bases) > 1 || bases[0] != c.bases[i] })
	if i < len(c.nodes) {
		c.launch(t, i)
		c.await(t, i)
		return
	}
	c.last = c.launchFourth(t, strings.TrimPrefix(c.bases[i], "http://"), c.listen)
	awaitReady(t, c.last.child, c.last.base+"/-/ready")
}

// pauseLive stops a node until steps have come to those who know only others.
func (c *liveCluster) pauseLive(t *testing.T, ctx context.Context, i int, wait time.Duration) {
	t.Helper()
	c.awaitStep(t, time.Now().Add(wait), all)
	c.writers[i%clusterWriters].correct(ctx)
	c.node(i).signal(syscall.SIGSTOP)
	defer c.node(i).signal(syscall.SIGCONT)
	c.awaitStep(t, time.Now().Add(3*time.Second+wait), func(bases []string) bool { return len(bases) == 1 && bases[0] != c.bases[i] })
}

// rebalance gives the fourth node its part of the shards, or takes it away.
func (c *liveCluster) rebalance(t *testing.T, in bool) {
	t.Helper()
	command := "drain"
	if in {
		command = "add"
	}
	if out, err := clusterCommand(t, c.nodes[0], command, "n4", "--yes"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	await(t, "the end of the plan", func() error {
		var s struct {
			Nodes []struct {
				Name     string
				Replicas int
			}
			Plan struct{ State string }
		}
		if err := getJSON(t.Context(), c.bases[0]+"/api/v1/cluster/status", &s); err != nil {
			return err
		}
		for _, n := range s.Nodes {
			if n.Name == "n4" && s.Plan.State == "done" && n.Replicas > 0 == in {
				return nil
			}
		}
		return fmt.Errorf("%+v", s)
	})
}

// all is for awaitStep.
func all([]string) bool { return true }

// awaitStep waits until the step at a time has come to those whose clients know the right nodes.
func (c *liveCluster) awaitStep(t *testing.T, at time.Time, who func(bases []string) bool) {
	t.Helper()
	var these []*follower
	for _, f := range c.follows {
		if who(f.bases) {
			these = append(these, f.follower)
		}
	}
	awaitStep(t, these, at)
	for _, f := range c.raw {
		if who(f.bases) {
			await(t, "steps told as they come", func() error { return f.reached(t, at) })
		}
	}
	for _, f := range c.samples {
		if err := f.failure(); err != nil {
			t.Fatal(err)
		}
	}
}

// checkSteps waits until every step is what the query API says.
func (c *liveCluster) checkSteps(t *testing.T, ctx context.Context, end time.Time) {
	t.Helper()
	c.awaitStep(t, end, all)
	for q, tolerance := range clusterQueries {
		first := end.UnixMilli()
		var these []*follower
		for _, f := range c.follows {
			if f.query == q {
				these = append(these, f.follower)
				first = min(first, f.began())
			}
		}
		await(t, q, func() error {
			answers, err := overTime(ctx, c.bases[0], q, first, end.UnixMilli())
			if err != nil {
				return err
			}
			for _, f := range these {
				err = errors.Join(err, f.check(end, tolerance, func(ms int64) (map[string]float64, error) { return answers[ms], nil }))
			}
			return err
		})
	}
}

func (f *follower) began() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.first
}

// overTime asks the query API for all steps of a range, by time and label set.
func overTime(ctx context.Context, base, expr string, from, to int64) (map[int64]map[string]float64, error) {
	const most = 10_000 // steps of one answer
	out := map[int64]map[string]float64{}
	for ; from <= to; from += most * clusterStep.Milliseconds() {
		end := min(to, from+(most-1)*clusterStep.Milliseconds())
		var m []struct {
			Metric map[string]string
			Values points
		}
		err := query(ctx, base, "query_range", url.Values{"query": {expr}, "start": {unixTime(from)}, "end": {unixTime(end)}, "step": {fmt.Sprint(clusterStep.Seconds())}}, &m)
		if err != nil {
			return nil, err
		}
		for _, s := range m {
			for _, v := range s.Values {
				if out[v.ms] == nil {
					out[v.ms] = map[string]float64{}
				}
				out[v.ms][fmt.Sprint(s.Metric)] = math.Float64frombits(v.bits)
			}
		}
	}
	return out, nil
}

func unixTime(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// checkSamples waits until each sample that is stored has come to all, and sees that no other came.
func (c *liveCluster) checkSamples(t *testing.T, ctx context.Context, from, to int64) {
	t.Helper()
	stored := map[string]map[int64]uint64{}
	for _, w := range c.writers {
		if err := readBack(ctx, c.bases[0], strconv.Itoa(w.id), from, to, stored); err != nil {
			t.Fatal(err)
		}
		if err := w.check(stored, from); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range c.samples {
		await(t, fmt.Sprint("samples by ", f.bases), func() error { return f.check(stored) })
		for _, w := range c.writers {
			if err := w.sentAll(f); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// clusterWriter writes samples as they are due to one node after another, each until it is acknowledged.
type clusterWriter struct {
	id    int
	bases []string
	at    int
	http  *http.Client
	mu    sync.Mutex // one request at a time
	sent  map[string]map[int64][]uint64
	acked map[string]map[int64]bool
}

func (w *clusterWriter) run(ctx context.Context, stop <-chan struct{}) {
	tick := time.NewTicker(clusterTick * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case now := <-tick.C:
			ms := now.UnixMilli() / clusterTick * clusterTick
			w.put(ctx, ms, 0)
			if n%10 == 0 { // one that is late
				w.put(ctx, ms-1500-clusterTick/2, 0)
			}
		case <-stop:
			return
		}
	}
}

// correct changes samples of closed steps, and returns once that is acknowledged.
func (w *clusterWriter) correct(ctx context.Context) {
	w.put(ctx, time.Now().Add(-1500*time.Millisecond).UnixMilli()/clusterTick*clusterTick, 1000)
}

func (w *clusterWriter) put(ctx context.Context, ms int64, add float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent == nil {
		w.sent, w.acked = map[string]map[int64][]uint64{}, map[string]map[int64]bool{}
	}
	var raw []byte
	for n := range liveSeries {
		key, v := fmt.Sprintf("%d/%d", w.id, n), float64(ms%1e8)*float64(n+1)/7+add
		if w.sent[key] == nil {
			w.sent[key], w.acked[key] = map[int64][]uint64{}, map[int64]bool{}
		}
		w.sent[key][ms] = append(w.sent[key][ms], math.Float64bits(v))
		raw = field(raw, 1, encodeSeries(w.id, n, v, ms))
	}
	body := snappy.Encode(nil, raw)
	for ctx.Err() == nil {
		if status, _, err := post(ctx, w.http, w.bases[w.at], v1, body); err == nil && status/100 == 2 {
			for n := range liveSeries {
				w.acked[fmt.Sprintf("%d/%d", w.id, n)][ms] = true
			}
			return
		}
		w.at = (w.at + 1) % len(w.bases)
		time.Sleep(10 * time.Millisecond) // between two tries; the node may be down
	}
}

// check wants each acknowledged sample to be stored.
func (w *clusterWriter) check(stored map[string]map[int64]uint64, from int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for key, acked := range w.acked {
		for ms := range acked {
			if ms < from {
				continue
			}
			n++
			if bits, ok := stored[key][ms]; !ok || !slices.Contains(w.sent[key][ms], bits) {
				return fmt.Errorf("%w: %s at %d is stored as %v (%v)", errLive, key, ms, math.Float64frombits(bits), ok)
			}
		}
	}
	if n == 0 {
		return fmt.Errorf("%w: nothing was acknowledged", errLive)
	}
	return nil
}

// sentAll wants all that one got of the writer's series to be what was sent.
func (w *clusterWriter) sentAll(f *sampleFollower) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, sent := range w.sent {
		for ms, got := range f.mu.got[key] {
			for _, bits := range got {
				if !slices.Contains(sent[ms], bits) {
					return fmt.Errorf("%w: %s at %d came as %v, which was not sent", errLive, key, ms, math.Float64frombits(bits))
				}
			}
		}
	}
	return nil
}

// sampleFollower keeps the samples that come.
type sampleFollower struct {
	bases []string
	mu    struct {
		sync.Mutex
		got map[string]map[int64][]uint64 // the values of a series and time, in order
		err error
	}
}

func (f *sampleFollower) follow(ctx context.Context, sub *client.Subscription) {
	takeAll(ctx, sub, &f.mu, &f.mu.err, f.takeLocked)
}

func (f *sampleFollower) takeLocked(u *client.Update) error {
	switch {
	case u.Err != nil && passing(u.Err):
		return nil
	case u.Err != nil:
		return u.Err
	case u.Dropped != nil:
		return fmt.Errorf("%w: %d samples dropped from %v to %v by %v", errLive, u.Dropped.Count, u.Dropped.From, u.Dropped.To, f.bases)
	}
	ms := u.Time.UnixMilli()
	for _, x := range u.Samples {
		key := x.Labels["writer"] + "/" + x.Labels["n"]
		if f.mu.got[key] == nil {
			f.mu.got[key] = map[int64][]uint64{}
		}
		bits := math.Float64bits(x.Value)
		if got := f.mu.got[key][ms]; len(got) > 0 && got[len(got)-1] == bits { // with another between, it may be
			return fmt.Errorf("%w: %s at %d came twice", errLive, key, ms)
		}
		f.mu.got[key][ms] = append(f.mu.got[key][ms], bits)
	}
	return nil
}

func passing(err error) bool {
	var e *client.Error
	return errors.As(err, &e) && (e.Type == "unavailable" || e.Type == "timeout")
}

// any wants a sample to have come.
func (f *sampleFollower) any() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.mu.got) == 0 && f.mu.err == nil {
		return errors.New("none came")
	}
	return nil
}

func (f *sampleFollower) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.err
}

// check wants each of the stored samples to have come.
func (f *sampleFollower) check(stored map[string]map[int64]uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.err != nil {
		return f.mu.err
	}
	missing, example := 0, ""
	for key, samples := range stored {
		for ms, bits := range samples {
			if got := f.mu.got[key][ms]; len(got) == 0 || got[len(got)-1] != bits {
				missing++
				example = fmt.Sprint(key, " at ", ms)
			}
		}
	}
	if missing > 0 {
		return fmt.Errorf("%w: %d samples are missing, such as %s", errLive, missing, example)
	}
	return nil
}

// rawFollower takes steps as the protocol has them: it resumes as LIVE.md says, leaves nothing out, and sees that no
// step is missing and none comes twice in a revision.
type rawFollower struct {
	bases []string
	mu    struct {
		sync.Mutex
		subs map[string]*rawSteps // by query, which is the id
		err  error
	}
}

type rawSteps struct {
	t, seen frame.Time // what to resume with
	last    frame.Time // the newest step
	came    map[[2]int64]bool
}

func newRawFollower(bases []string) *rawFollower {
	f := &rawFollower{bases: bases}
	f.mu.subs = map[string]*rawSteps{}
	for q := range clusterQueries {
		f.mu.subs[q] = &rawSteps{came: map[[2]int64]bool{}}
	}
	return f
}

func (f *rawFollower) run(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		ws, _, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(f.bases[i%len(f.bases)], "http")+"/api/v1/live", nil)
		if err != nil {
			time.Sleep(50 * time.Millisecond) // between two tries; the node may be down
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = ws.Close() })
		f.session(ws)
		stop()
		_ = ws.Close()
		if f.failure() != nil {
			return
		}
	}
}

func (f *rawFollower) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.err
}

func (f *rawFollower) session(ws *websocket.Conn) {
	for _, id := range slices.Sorted(maps.Keys(clusterQueries)) {
		f.mu.Lock()
		s := f.mu.subs[id]
		sub := frame.Sub{ID: id, Query: id, Step: frame.Duration(clusterStep), Resume: s.t, Seen: s.seen}
		f.mu.Unlock()
		if ws.WriteJSON(&frame.Request{Op: frame.OpSubscribe, Sub: sub}) != nil {
			return
		}
	}
	for {
		_, msg, err := ws.ReadMessage()
		if err != nil {
			return
		}
		x, err := frame.ParseFrame(msg)
		f.mu.Lock()
		if err == nil && f.mu.subs[x.ID] != nil {
			err = f.mu.subs[x.ID].take(x)
		}
		f.mu.err = errors.Join(f.mu.err, err)
		f.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *rawSteps) take(x *frame.Frame) error {
	key := [2]int64{int64(x.T), int64(x.Rev)}
	switch x.Type {
	case frame.Ack:
		if s.t == 0 {
			s.t = x.T
		}
	case frame.Dropped:
		return fmt.Errorf("%w: %s: %d steps dropped from %d to %d", errLive, x.ID, x.Count, x.From, x.To)
	case frame.Error:
		if x.Ended || x.ErrorType != "unavailable" && x.ErrorType != "timeout" {
			return fmt.Errorf("%w: %s: %s", errLive, x.ID, x.Error)
		}
	case frame.Data:
		switch {
		case s.came[key]:
			return fmt.Errorf("%w: %s: step %d came twice in revision %d", errLive, x.ID, x.T, x.Rev)
		case x.Rev == 0 && s.last != 0 && x.T != s.last+frame.Time(clusterStep.Milliseconds()):
			return fmt.Errorf("%w: %s: step %d after %d", errLive, x.ID, x.T, s.last)
		case x.Rev == 0:
			s.last = x.T
		default:
			s.seen = max(s.seen, x.T+frame.Time(x.Rev))
		}
		s.came[key] = true
		s.t = max(s.t, x.T)
	}
	return nil
}

// reached wants the step at a time to have come.
func (f *rawFollower) reached(t *testing.T, at time.Time) error {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.err != nil {
		t.Fatal(f.mu.err)
	}
	for q, s := range f.mu.subs {
		if int64(s.last) < at.Add(-clusterStep).UnixMilli() {
			return fmt.Errorf("%s: the step at %v does not come after %d", q, at, s.last)
		}
	}
	return nil
}
