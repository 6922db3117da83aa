package e2e

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// faultSeries is how many series each writer has while a cluster suffers.
const faultSeries = 10

// longest is how many of the longest gaps are named.
const longest = 10

// clientPatience is how long a writer waits for a node before it turns to another.
const clientPatience = 2 * time.Second

// fault does something to a trio, and says how to mend it.
type fault struct {
	name string
	do   func(t *testing.T, c *trio, i int) (mend func())
}

// killed and paused need nothing but signals.
var (
	killed = fault{"kill", func(t *testing.T, c *trio, i int) func() {
		c.nodes[i].kill(t)
		return func() { c.launch(t, i) }
	}}
	paused = fault{"pause", func(_ *testing.T, c *trio, i int) func() {
		c.nodes[i].signal(syscall.SIGSTOP)
		return func() { c.nodes[i].signal(syscall.SIGCONT) }
	}}
)

// gaps measures the longest time without an acknowledgement in each round.
type gaps struct {
	acked atomic.Int64
	mu    struct {
		sync.Mutex
		last  time.Time
		worst time.Duration
		what  string
		all   []gap
	}
}

// gap is the longest time without an acknowledgement in a round.
type gap struct {
	time.Duration
	what string // the round and its fault
}

func (g *gaps) acknowledged() {
	g.acked.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if !g.mu.last.IsZero() {
		g.mu.worst = max(g.mu.worst, now.Sub(g.mu.last))
	}
	g.mu.last = now
}

// next ends a round and begins another; the first is that before any fault.
func (g *gaps) next(what string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.all = append(g.mu.all, gap{g.mu.worst, g.mu.what})
	g.mu.worst, g.mu.what = 0, what
}

func (g *gaps) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.all) < 2 {
		return "no rounds"
	}
	all := slices.SortedFunc(slices.Values(g.mu.all[1:]), func(a, b gap) int { return cmp.Compare(a.Duration, b.Duration) })
	at := func(q int) time.Duration { return all[min(len(all)-1, len(all)*q/100)].Round(time.Millisecond) }
	s := fmt.Sprintf("write gap p50 %v, p99 %v, worst %v", at(50), at(99), at(100))
	for _, x := range all[max(0, len(all)-longest):] {
		s += fmt.Sprintf("\n%6.2f s in %s", x.Seconds(), x.what)
	}
	return s
}

// writeToAny sends requests until ctx ends: each to the node that took the last, and
// to the others in turn while it does not.
func (c *trio) writeToAny(ctx context.Context, l *ledger, writer int, ms int64, g *gaps) int64 {
	client := &http.Client{Timeout: clientPatience}
	defer client.CloseIdleConnections()
	at := writer % len(c.addrs)
	for ; ctx.Err() == nil; ms++ {
		body, done := l.request(writer, faultSeries, ms)
		for status := 0; status/100 != 2; {
			var err error
			status, _, err = post(ctx, client, "http://"+c.addrs[at], v1, body)
			if ctx.Err() != nil {
				return ms
			}
			if err != nil || status/100 != 2 {
				at = (at + 1) % len(c.addrs)
			}
		}
		done()
		g.acknowledged()
		if *soak { // hours of it must fit into the ledger
			time.Sleep(20 * time.Millisecond)
		}
	}
	return ms
}

// strike inflicts a fault on a node, waits for progress in spite of it, and mends it.
func (c *trio) strike(t *testing.T, f fault, i int, what string, progress func(what string)) {
	t.Helper()
	what += fmt.Sprintf(" of n%d", i+1)
	progress("before " + what)
	mend := f.do(t, c, i)
	c.counts[f.name]++
	progress("in " + what)
	mend()
	c.await(t, i)
}

// suffer lets writers go on at every node while faults come, one a round, each mended
// when writes have resumed in spite of it: nothing acknowledged is lost, nothing is there
// that was not sent, on any node, and all replicas are equal at the same entry.
func (c *trio) suffer(t *testing.T, seed uint64, n int, faults []fault) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 0))
	l, g := newLedger(), &gaps{}
	first := time.Now().Add(-time.Hour).UnixMilli()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	ends := make([]int64, crashWriters)
	for w := range crashWriters {
		writers.Go(func() { ends[w] = c.writeToAny(ctx, l, w, first, g) })
	}
	progress := func(what string) {
		t.Helper()
		before := g.acked.Load()
		await(t, "writes "+what, func() error {
			if now := g.acked.Load(); now < before+20 {
				return fmt.Errorf("%d writes were acknowledged since (seed %d)", now-before, seed)
			}
			return nil
		})
	}
	order := rnd.Perm(len(faults))
	for round := range n {
		f := faults[order[round%len(order)]]
		c.strike(t, f, rnd.IntN(len(c.nodes)), fmt.Sprintf("round %d, %s", round, f.name), func(what string) {
			t.Helper()
			progress(what)
			if before, ok := strings.CutPrefix(what, "before "); ok {
				g.next(before)
			}
		})
	}
	progress("after all faults")
	g.next("")
	cancel()
	writers.Wait()
	next := first
	for _, e := range ends {
		next = max(next, e+1)
	}
	for i := range c.nodes {
		l.check(t, c.nodes[i].base, first, next)
	}
	c.sameHashes(t)
	t.Logf("%d rounds %v: %d requests of %d samples acknowledged, 0 lost, 0 phantom, %v", n, c.counts, g.acked.Load(), faultSeries, g)
}

// TestClusterFaults is fault 11 on loopback: nodes are killed and paused.
func TestClusterFaults(t *testing.T) {
	c := newTrio(t, nil)
	c.suffer(t, 11, rounds(10, 500), []fault{killed, paused})
	for i := range c.nodes {
		c.nodes[i].terminate(t)
	}
}
