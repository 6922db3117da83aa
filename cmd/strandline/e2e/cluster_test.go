package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// trio is three real processes on loopback.
type trio struct {
	dir   string
	peers string
	addrs [3]string // of the HTTP servers
	nodes [3]*strandline
}

// newTrio starts a cluster; linearizable reads are the default, so that a check sees
// all that was acknowledged.
func newTrio(t *testing.T) *trio {
	t.Helper()
	c := &trio{dir: t.TempDir()}
	var peers []string
	for i := range c.nodes {
		c.addrs[i] = freeAddr(t)
		peers = append(peers, fmt.Sprintf("n%d=%s", i+1, freeAddr(t)))
	}
	c.peers = strings.Join(peers, ",")
	for i := range c.nodes {
		c.launch(t, i)
	}
	for i := range c.nodes {
		c.await(t, i)
	}
	return c
}

// launch starts a process and waits for nothing.
func (c *trio) launch(t *testing.T, i int) {
	t.Helper()
	name := fmt.Sprintf("n%d", i+1)
	args := append([]string{"serve", "--data", filepath.Join(c.dir, name), "--listen", c.addrs[i], "--retention=0", "--self-scrape-interval=0",
		"--cluster-node", name, "--cluster-peers", c.peers, "--consistency", "linearizable"}, tinyFlush()...)
	c.nodes[i] = &strandline{child: start(t, program, args...), base: "http://" + c.addrs[i]}
}

func (c *trio) await(t *testing.T, i int) {
	t.Helper()
	awaitReady(t, c.nodes[i].child, c.nodes[i].base+"/-/ready")
}

// writeToAny sends requests until ctx ends: each to the node that took the last, and
// to the others in turn while it does not.
func (c *trio) writeToAny(ctx context.Context, l *ledger, writer int, ms int64, acked *atomic.Int64) int64 {
	client := &http.Client{Timeout: 8 * time.Second}
	defer client.CloseIdleConnections()
	at := writer % len(c.addrs)
	for ; ctx.Err() == nil; ms++ {
		body, done := l.request(writer, crashSeries, ms)
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
		acked.Add(1)
	}
	return ms
}

// TestClusterFaults is fault 11 on loopback: nodes are killed and paused under writes
// that go to every node; nothing acknowledged is lost, nothing is there that was not
// sent, on any node.
func TestClusterFaults(t *testing.T) {
	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, 0))
	c, l := newTrio(t), newLedger()
	first := time.Now().Add(-time.Hour).UnixMilli()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	var acked atomic.Int64
	ends := make([]int64, crashWriters)
	for w := range crashWriters {
		writers.Go(func() { ends[w] = c.writeToAny(ctx, l, w, first, &acked) })
	}
	progress := func(what string) {
		before := acked.Load()
		await(t, "writes after "+what, func() error {
			if acked.Load() < before+20 {
				return fmt.Errorf("%d writes were acknowledged since (seed %d)", acked.Load()-before, seed)
			}
			return nil
		})
	}
	for round := range clusterRounds {
		i := rnd.IntN(len(c.nodes))
		what := fmt.Sprintf("round %d, node n%d", round, i+1)
		progress("the start of " + what)
		if round%2 == 0 {
			c.nodes[i].kill(t)
			progress("SIGKILL in " + what)
			c.launch(t, i)
		} else {
			c.nodes[i].signal(syscall.SIGSTOP)
			progress("SIGSTOP in " + what)
			c.nodes[i].signal(syscall.SIGCONT)
		}
		c.await(t, i)
	}
	cancel()
	writers.Wait()
	next := first
	for _, e := range ends {
		next = max(next, e+1)
	}
	t.Logf("%d requests acknowledged", acked.Load())
	for i := range c.nodes {
		l.check(t, c.nodes[i].base, first, next)
	}
	for i := range c.nodes {
		c.nodes[i].terminate(t)
	}
}

// TestReadYourWrites: the token of a write makes it visible at another node at once.
func TestReadYourWrites(t *testing.T) {
	c, l := newTrio(t), newLedger()
	now := time.Now().UnixMilli()
	for i := range 30 {
		body, done := l.request(0, 1, now+int64(i))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.nodes[i%3].base+"/api/v1/write", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", v1)
		req.Header.Set("Content-Encoding", "snappy")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		token := res.Header.Get("X-Strandline-Applied")
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusNoContent || token == "" {
			t.Fatalf("%v %s %q", err, res.Status, token)
		}
		done()
		get, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			c.nodes[(i+1)%3].base+fmt.Sprintf("/api/v1/query?consistency=stale&query=count_over_time({__name__!=\"\"}[1m])&time=%.3f", float64(now+int64(i))/1000), nil)
		if err != nil {
			t.Fatal(err)
		}
		get.Header.Set("X-Strandline-Applied", token)
		res, err = http.DefaultClient.Do(get)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || len(answer.Data.Result) != 1 || answer.Data.Result[0].Value[1] != fmt.Sprint(i+1) {
			t.Fatalf("write %d: %v, %+v", i, err, answer)
		}
		if res.Header.Get("X-Strandline-Staleness") == "" {
			t.Error("a stale answer does not say how old it may be")
		}
	}
}
