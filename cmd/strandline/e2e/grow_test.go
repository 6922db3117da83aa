package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// put writes one request and notes it.
func put(t *testing.T, l *ledger, base string, ms int64) {
	t.Helper()
	body, done := l.request(0, crashSeries, ms)
	await(t, "a write", func() error {
		status, text, err := post(t.Context(), http.DefaultClient, base, v1, body)
		if err != nil || status/100 != 2 {
			return fmt.Errorf("%d %s %w", status, text, err)
		}
		return nil
	})
	done()
}

// prepared returns a trio of which nothing runs.
func prepared(t *testing.T) *trio {
	t.Helper()
	c := &trio{dir: t.TempDir()}
	c.place(t)
	return c
}

// TestGrowThenRecover: a single node with data is stopped and started as the first of
// three, which then all have it; two of the three are lost for good, and the command
// makes a new cluster of the third, which again becomes three.
func TestGrowThenRecover(t *testing.T) {
	c, l := prepared(t), newLedger()
	s := serve(t, filepath.Join(c.dir, "n1"), "--shards", "8")
	var at int64
	for at = 1000; at < 1040; at++ {
		put(t, l, s.base, at)
	}
	s.terminate(t)
	three := func() {
		for i := range c.nodes {
			c.launch(t, i)
		}
		for i := range c.nodes {
			c.await(t, i)
		}
		put(t, l, c.nodes[2].base, at)
		at++
		for i := range c.nodes {
			l.check(t, c.nodes[i].base, 1000, at)
		}
		c.sameHashes(t)
	}
	three()
	for i := range c.nodes {
		c.nodes[i].kill(t)
	}
	for _, name := range []string{"n2", "n3"} {
		if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	strand(t, "cluster", "recover", "--data", filepath.Join(c.dir, "n1"), "--yes")
	three()
}

// TestRollingRestart: three nodes are restarted one after another under writes of senders
// that try again; each write comes through, and nothing is lost.
func TestRollingRestart(t *testing.T) {
	c, l, g := newTrio(t, nil), newLedger(), &gaps{}
	first := time.Now().Add(-time.Hour).UnixMilli()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	ends := make([]int64, crashWriters)
	for w := range crashWriters {
		writers.Go(func() { ends[w] = c.writeToAny(ctx, l, w, first, g) })
	}
	for i := range c.nodes {
		before := g.acked.Load()
		c.nodes[i].terminate(t)
		await(t, "writes without the node", func() error {
			if g.acked.Load() < before+20 {
				return fmt.Errorf("%d writes were acknowledged since", g.acked.Load()-before)
			}
			return nil
		})
		c.launch(t, i)
		c.await(t, i)
	}
	cancel()
	writers.Wait()
	last := first
	for _, end := range ends {
		last = max(last, end)
	}
	for i := range c.nodes {
		l.check(t, c.nodes[i].base, first, last+1)
	}
	c.sameHashes(t)
}
