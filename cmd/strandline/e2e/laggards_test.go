package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/bench/live"
	"github.com/strandline-db/strandline/server/live/frame"
)

const (
	laggardStep = 100 * time.Millisecond // of all queries, and between two requests of the stream
	laggardSubs = 5                      // subscriptions of a client
	sipBytes    = 4 << 10                // of one read of a client that takes little
)

// audienceSize is how large TestLaggards is.
type audienceSize struct {
	clients, queries, series int
	wide                     int           // series of the first query of laggards, and of one who reads; 0: it is as the others
	sip                      time.Duration // between two reads of those who take little
	timeout                  time.Duration // live-write-timeout
	bursts                   int           // of other writes in each phase, one in two seconds, for comparison
}

// audience is the clients of a server, a stream of samples for them, and what came of both.
type audience struct {
	audienceSize
	t         *testing.T
	s         *strandline
	l         *ledger
	first     int64                 // Unix ms: nothing was written before
	last      int64                 // the newest burst's
	endStream func() (rate float64) // in requests a second
	readers   *live.Crowd
	read      [][laggardSubs]account
	laggards  []*laggard
	lag       atomic.Bool   // they lag
	over      chan struct{} // no longer
	peak      int64         // of the server's anonymous memory, in bytes
}

// TestLaggards is fault 22: of many subscribers one in ten lags. Half of these take nothing
// more, and are cut; half take little, and are told of a gap: what came before it, the
// steps that it tells of and what comes after it are all there were. They hold little
// memory. The others get each step, and what was acknowledged is stored. A soak has 1,000
// subscribers, lets them lag for a minute, and compares how long writes take.
func TestLaggards(t *testing.T) {
	a := newAudience(t)
	alone := a.burst("alone")
	a.gather()
	reading := a.burst("with all reading")
	before, acked := a.s.anon(t), a.l.acked()
	a.peak = before
	begin := time.Now()
	a.lag.Store(true)
	lagging := a.burst("with one in ten lagging")
	a.awaitLag()
	lasted := time.Since(begin)
	rate := a.endStream()
	heap := a.s.heap(t)
	close(a.over)
	a.catchUp(time.Now())
	a.checkMemory(a.peak-before, a.l.acked()-acked, heap-a.s.heap(t))
	a.leave(lasted)
	if *soak {
		if rate < 9 {
			t.Errorf("void: %.1f requests a second, 10 are wanted", rate)
		}
		a.compare(alone, reading, lagging)
	}
	a.l.check(t, a.s.base, a.first, time.Now().UnixMilli())
}

// newAudience starts a server and the stream.
func newAudience(t *testing.T) *audience {
	t.Helper()
	size := audienceSize{clients: 60, queries: 10, series: 100, wide: 4000, sip: 20 * time.Millisecond, timeout: 5 * time.Second}
	if *soak {
		size = audienceSize{clients: 1000, queries: 100, series: 1000, sip: 400 * time.Millisecond, timeout: 30 * time.Second, bursts: 30}
	}
	a := &audience{audienceSize: size, t: t, l: newLedger(), over: make(chan struct{})}
	// The steps that can be corrected are the queries' and not the clients': few, so that memory stands still soon.
	a.s = serve(t, t.TempDir(), "--live-write-timeout="+a.timeout.String(), "--live-max-series=4000", "--live-horizon=2s")
	a.first = time.Now().UnixMilli()
	a.last = a.first
	a.write(1, max(a.wide, 1), a.first)
	a.write(0, a.series, a.first)
	a.stream()
	return a
}

// stream writes a sample of each series ten times a second.
func (a *audience) stream() {
	ctx, cancel := context.WithCancel(a.t.Context())
	begin, sent := time.Now(), 0
	var writing sync.WaitGroup
	writing.Go(func() {
		tick := time.NewTicker(laggardStep)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				a.write(0, a.series, now.UnixMilli())
				sent++
			case <-ctx.Done():
				return
			}
		}
	})
	a.endStream = func() float64 {
		cancel()
		writing.Wait()
		return float64(sent) / time.Since(begin).Seconds()
	}
	a.t.Cleanup(func() { a.endStream() })
}

// write has one sample of each series of a writer acknowledged.
func (a *audience) write(writer, series int, ms int64) {
	body, done := a.l.request(writer, series, ms)
	if status, text, err := post(a.t.Context(), http.DefaultClient, a.s.base, v1, body); (err != nil || status != http.StatusNoContent) && a.t.Context().Err() == nil {
		a.t.Errorf("%v %d %s", err, status, text)
		return
	}
	done()
}

// bursts is how long writes took in a phase.
type bursts struct {
	p50    time.Duration
	others float64 // cores that were used neither by the server nor here
}

// burst writes series that nobody asks for, some requests one after another, again and again.
func (a *audience) burst(what string) (b bursts) {
	if a.bursts == 0 {
		return b
	}
	begin, before := time.Now(), a.used()
	const requests, series = 30, 300
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	var took []time.Duration
	for range a.bursts {
		<-tick.C
		begin := time.Now()
		for range requests {
			a.last = max(a.last+1, time.Now().UnixMilli())
			a.write(2, series, a.last)
		}
		took = append(took, time.Since(begin))
		a.peak = max(a.peak, a.s.anon(a.t))
	}
	slices.Sort(took)
	after := a.used()
	b.p50 = took[len(took)/2]
	b.others = ((after.Busy - before.Busy) - (after.Server - before.Server) - (after.Load - before.Load)).Seconds() / time.Since(begin).Seconds()
	a.t.Logf("%d bursts of %d requests of %d samples %s: least %v, p50 %v, worst %v; %s", len(took), requests, series, what,
		took[0].Round(time.Microsecond), b.p50.Round(time.Microsecond), took[len(took)-1].Round(time.Microsecond), after.Since(before))
	return b
}

func (a *audience) used() live.Usage {
	a.t.Helper()
	u, err := live.Used(a.s)
	if err != nil {
		a.t.Fatal(err)
	}
	return u
}

// compare judges by how much laggards slow down the ingest, unless the machine does other work:
// what that does to it is more.
func (a *audience) compare(alone, reading, lagging bursts) {
	a.t.Helper()
	ratio := float64(lagging.p50) / float64(reading.p50)
	a.t.Logf("a burst takes %.2f times as long with all reading as alone, and %.2f times as long with one in ten lagging as with all reading", float64(reading.p50)/float64(alone.p50), ratio)
	switch others := max(reading.others, lagging.others); {
	case others > 0.1:
		a.t.Logf("not judged: other programs used %.2f cores", others)
	case ratio > 1.05:
		a.t.Errorf("ingest takes %.2f times as long with laggards", ratio)
	}
}

// query is one of the distinct queries: of the stream's series every so manieth, and the next.
func (a *audience) query(i int) string {
	var names []string
	for n := i % a.queries; n < a.series; n += a.queries {
		names = append(names, strconv.Itoa(n), strconv.Itoa((n+1)%a.series))
	}
	return fmt.Sprintf(`ledger{writer="0",n=~%q}`, strings.Join(names, "|"))
}

// request is what the ith client asks for.
func (a *audience) request(i int, laggard bool) frame.Request {
	r := frame.Request{Op: frame.OpSet}
	for k := range laggardSubs {
		r.Subs = append(r.Subs, frame.Sub{ID: strconv.Itoa(k), Query: a.query(i*laggardSubs + k*7), Step: frame.Duration(laggardStep)})
	}
	if a.wide > 0 && (laggard || i == 0) {
		r.Subs[0].Query = `ledger{writer="1"}`
	}
	return r
}

// encoded is what the ith of those who read sends.
func (a *audience) encoded(i int) string {
	b, err := json.Marshal(a.request(i, false))
	if err != nil {
		a.t.Error(err)
	}
	return string(b)
}

// gather connects all, and waits until each has had steps of all its queries.
func (a *audience) gather() {
	a.t.Helper()
	for i := range a.clients / 10 {
		a.laggards = append(a.laggards, a.newLaggard(i))
	}
	a.read = make([][laggardSubs]account, a.clients-len(a.laggards))
	var err error
	a.readers, err = live.Gather(a.t.Context(), strings.TrimPrefix(a.s.base, "http://"), len(a.read),
		a.encoded, a.take)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = a.readers.Leave() }) // what failed was told
	a.await("a step of each query", time.UnixMilli(1), a.laggards)
}

// take is called with what comes to a client that reads: each step.
func (a *audience) take(i int, f *live.Frame) error {
	var err error
	switch string(f.Type) {
	case frame.Ack, frame.Series, frame.Heartbeat:
	case frame.Data:
		var k int
		if k, err = strconv.Atoi(string(f.ID)); err == nil && f.Rev == 0 {
			err = a.read[i][k].step(f.T)
		}
	default:
		err = fmt.Errorf("%w: %.200s", errLive, f.Payload)
	}
	if err != nil {
		a.t.Errorf("reader %d: %v", i, err)
	}
	return err
}

// await waits until those who read, and these laggards, have had all steps up to a time.
func (a *audience) await(what string, at time.Time, laggards []*laggard) {
	a.t.Helper()
	await(a.t, what, func() error {
		if a.t.Failed() {
			a.t.FailNow()
		}
		for i := range a.read {
			if err := reached(&a.read[i], at); err != nil {
				return fmt.Errorf("reader %d: %w", i, err)
			}
		}
		for i, g := range laggards {
			if err := reached(&g.accounts, at); err != nil {
				return fmt.Errorf("laggard %d: %w", i, err)
			}
		}
		return nil
	})
}

func reached(all *[laggardSubs]account, at time.Time) error {
	for k := range all {
		if last := all[k].last.Load(); last < at.UnixMilli() {
			return fmt.Errorf("subscription %d is at %d", k, last)
		}
	}
	return nil
}

// awaitLag waits until the laggards that take nothing are cut, and the others are told of a gap.
func (a *audience) awaitLag() {
	a.t.Helper()
	nothing, little := a.halves()
	await(a.t, "those who take nothing to be cut", func() error {
		a.peak = max(a.peak, a.s.anon(a.t))
		if n := metric(a.t, a.s, `strandline_live_cut_clients_total{reason="slow"}`); n != fmt.Sprint(len(nothing)) {
			return fmt.Errorf("%s of %d are", n, len(nothing))
		}
		return nil
	})
	await(a.t, "those who take little to be told", func() error {
		a.peak = max(a.peak, a.s.anon(a.t))
		for i, g := range little {
			if !g.told.Load() {
				return fmt.Errorf("%d is not", i)
			}
		}
		return nil
	})
}

// halves are the laggards that take nothing, and those that take little.
func (a *audience) halves() (nothing, little []*laggard) {
	for _, g := range a.laggards {
		if g.sip == 0 {
			nothing = append(nothing, g)
		} else {
			little = append(little, g)
		}
	}
	return nothing, little
}

// catchUp waits until all steps up to a time have come to all that are left, and has the
// laggards leave.
func (a *audience) catchUp(at time.Time) {
	a.t.Helper()
	nothing, little := a.halves()
	a.await("all steps", at, little)
	for _, g := range little {
		_ = g.ws.Close()
	}
	for i, g := range nothing {
		select {
		case <-g.ended: // by the server, as is counted
		case <-time.After(patience):
			a.t.Fatalf("laggard %d is still connected", i)
		}
	}
	await(a.t, "the laggards to have left", func() error {
		if n := metric(a.t, a.s, `strandline_live_connections{transport="websocket"}`); n != fmt.Sprint(len(a.read)) {
			return fmt.Errorf("%s are there, %d are wanted", n, len(a.read))
		}
		return nil
	})
}

const (
	clientBytes = 256 << 10 // what a client may hold
	sampleBytes = 64        // what a sample that was written a moment ago may
)

// checkMemory judges, with a wide margin, by how much the anonymous memory grew while all
// lagged and so many samples were written; and what the heap gave back when those left who took little.
func (a *audience) checkMemory(grown int64, samples int, held int64) {
	a.t.Helper()
	_, little := a.halves()
	a.t.Logf("%d laggards: %d KiB more of anonymous memory, %d samples included; the %d who take little: %d KiB of the heap", len(a.laggards), grown>>10, samples, len(little), held>>10)
	if most := int64(len(a.laggards)*clientBytes+samples*sampleBytes+64<<20) * memoryFactor; grown > most {
		a.t.Errorf("memory grew by %d bytes, more than %d", grown, most)
	}
	if most := int64(len(little)*clientBytes + 2<<20); held > most { // and what the others happen to hold
		a.t.Errorf("%d laggards held %d bytes, more than %d", len(little), held, most)
	}
}

// leave ends all and sums up.
func (a *audience) leave(lasted time.Duration) {
	a.t.Helper()
	if err := a.readers.Leave(); err != nil {
		a.t.Error(err)
	}
	var steps, came, missed int64
	for i := range a.read {
		for k := range a.read[i] {
			steps += a.read[i][k].came
		}
	}
	nothing, little := a.halves()
	for _, g := range little {
		<-g.ended
		for k := range g.accounts {
			x := &g.accounts[k]
			came, missed = came+x.came, missed+x.missed
			if all := (x.last.Load()-x.first)/laggardStep.Milliseconds() + 1; x.came+x.missed != all {
				a.t.Errorf("%d steps came, %d were told to be missing, of %d", x.came, x.missed, all)
			}
		}
	}
	a.t.Logf("%d clients, %d subscriptions each, of %d queries; %d lagged for %v: %d steps came to those who read, none is missing; %d took nothing and were cut; "+
		"%d took little, %d steps came to them and of %d they were told, together all", a.clients, laggardSubs, a.queries, len(a.laggards), lasted.Round(time.Second), steps,
		len(nothing), len(little), came, missed)
}

// account is what came to a subscription. One goroutine takes; last may be looked at.
type account struct {
	first, came, missed int64 // first: Unix ms
	last                atomic.Int64
}

func (x *account) step(ms int64) error {
	if last := x.last.Load(); last == 0 {
		x.first = ms
	} else if ms != last+laggardStep.Milliseconds() {
		return fmt.Errorf("%w: step %d came after %d", errLive, ms, last)
	}
	x.came++
	x.last.Store(ms)
	return nil
}

// gap takes what the server tells of steps that are missing.
func (x *account) gap(f *frame.Frame) error {
	step := laggardStep.Milliseconds()
	if last := x.last.Load(); int64(f.From) != last+step || f.Count != int64(f.To-f.From)/step+1 {
		return fmt.Errorf("%w: after %d, %d steps are told to be missing from %d to %d", errLive, last, f.Count, f.From, f.To)
	}
	x.missed += f.Count
	x.last.Store(int64(f.To))
	return nil
}

// laggard is a client, and its connection: while the audience lags it takes little, or nothing.
type laggard struct {
	net.Conn
	a        *audience
	sip      time.Duration // between two reads; 0: none is made
	ws       *websocket.Conn
	accounts [laggardSubs]account
	told     atomic.Bool // of a gap
	ended    chan struct{}
}

func (a *audience) newLaggard(i int) *laggard {
	a.t.Helper()
	g := &laggard{a: a, ended: make(chan struct{})}
	if i%2 == 1 {
		g.sip = a.sip
	}
	d := websocket.Dialer{NetDial: func(network, addr string) (c net.Conn, err error) {
		if c, err = net.Dial(network, addr); err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(4 * sipBytes)
		}
		g.Conn = c
		return g, err
	}}
	var err error
	if g.ws, _, err = d.Dial("ws"+strings.TrimPrefix(a.s.base, "http")+"/api/v1/live", nil); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		_ = g.ws.Close()
		<-g.ended
	})
	go func() {
		defer close(g.ended)
		if err := g.follow(); err != nil {
			a.t.Errorf("laggard %d: %v", i, err)
		}
	}()
	if err := g.ws.WriteJSON(a.request(i, true)); err != nil {
		a.t.Fatal(err)
	}
	return g
}

// Read implements net.Conn.
func (g *laggard) Read(p []byte) (int, error) {
	if g.a.lag.Load() {
		var turn <-chan time.Time
		if g.sip > 0 {
			turn = time.After(g.sip)
			p = p[:min(len(p), sipBytes)]
		}
		select {
		case <-turn:
		case <-g.a.over:
		case <-g.a.t.Context().Done():
			return 0, net.ErrClosed
		}
	}
	return g.Conn.Read(p)
}

// follow takes what comes until the connection ends; whoever waits for its steps sees if
// that was too early.
func (g *laggard) follow() error {
	for {
		_, msg, err := g.ws.ReadMessage()
		if err != nil {
			return nil
		}
		if head, _, cut := bytes.Cut(msg, []byte(`,"v":`)); cut { // the values are many
			msg = append(head, '}')
		}
		f, err := frame.ParseFrame(msg)
		if err == nil {
			err = g.take(f)
		}
		if err != nil {
			return fmt.Errorf("%.200s: %w", msg, err)
		}
	}
}

func (g *laggard) take(f *frame.Frame) error {
	switch f.Type {
	case frame.Ack, frame.Series, frame.Heartbeat:
		return nil
	case frame.Data, frame.Dropped:
	default:
		return errLive
	}
	k, err := strconv.Atoi(f.ID)
	switch {
	case err != nil:
		return err
	case f.Type == frame.Dropped:
		g.told.Store(true)
		return g.accounts[k].gap(f)
	case f.Rev == 0:
		return g.accounts[k].step(int64(f.T))
	}
	return nil
}
