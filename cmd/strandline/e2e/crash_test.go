package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	crashWriters = 4
	crashSeries  = 50
)

// soak makes the fault tests long; see make soak.
var (
	soak     = flag.Bool("soak", false, "run the fault tests at the size of a soak")
	soakSize = flag.Int("rounds", 0, "how many rounds of faults a soak does; 0: as many as each test has")
)

// rounds is the number of faults: fast in make test, or of a soak.
func rounds(fast, long int) int {
	switch {
	case !*soak:
		return fast
	case *soakSize > 0:
		return *soakSize
	}
	return long
}

// tinyFlush makes the server flush and merge all the time.
func tinyFlush() []string {
	return []string{"--flush-interval", "100ms", "--head-bytes", "65536"}
}

// TestKillUnderIngest is fault 1: SIGKILL at random moments under full ingest, flush and compaction.
func TestKillUnderIngest(t *testing.T) {
	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir, l := t.TempDir(), newLedger()
	first := time.Now().Add(-time.Hour).UnixMilli()
	next := first
	for round := range rounds(25, 1000) {
		from, before := next, l.acked()
		s := serve(t, dir, tinyFlush()...)
		if round > 0 {
			l.check(t, s.base, first, from)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		ends := make([]int64, crashWriters)
		for w := range crashWriters {
			writers.Go(func() { ends[w] = writeUntilDown(ctx, s.base, l, w, from) })
		}
		await(t, "an acknowledgement", func() error {
			if l.acked() == before {
				return fmt.Errorf("none in round %d (seed %d)", round, seed)
			}
			return nil
		})
		time.Sleep(time.Duration(rnd.IntN(150_000)) * time.Microsecond)
		s.kill(t)
		cancel()
		writers.Wait()
		for _, e := range ends {
			next = max(next, e+1)
		}
		if l.acked() == before {
			t.Fatalf("void: round %d (seed %d) acknowledged nothing", round, seed)
		}
	}
	s := serve(t, dir)
	l.check(t, s.base, first, next)
	s.terminate(t)
}

// writeUntilDown sends requests one after another, a millisecond apart in time stamps, until one fails, and
// returns the last timestamp. A 503 is no acknowledgement; the same body goes again.
func writeUntilDown(ctx context.Context, base string, l *ledger, writer int, ms int64) int64 {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for ; ; ms++ {
		body, done := l.request(writer, crashSeries, ms)
		for status := 0; status/100 != 2; {
			var err error
			if status, _, err = post(ctx, client, base, v1, body); err != nil {
				return ms
			}
		}
		done()
	}
}

// TestCleanStopKeepsAll stops with SIGTERM and wants everything back after a restart.
func TestCleanStopKeepsAll(t *testing.T) {
	dir, l := t.TempDir(), newLedger()
	first := time.Now().Add(-time.Hour).UnixMilli()
	s := serve(t, dir)
	fill(t, s.base, l, first, 100)
	l.check(t, s.base, first, first+100)
	s.terminate(t)
	s = serve(t, dir)
	l.check(t, s.base, first, first+100)
	s.terminate(t)
}

// fill writes n requests of each of two writers and wants all of them acknowledged.
func fill(t *testing.T, base string, l *ledger, first int64, n int) {
	t.Helper()
	for ms := first; ms < first+int64(n); ms++ {
		for w := range 2 {
			body, done := l.request(w, crashSeries, ms)
			status, text, err := post(t.Context(), http.DefaultClient, base, v1, body)
			if err != nil || status != http.StatusNoContent {
				t.Fatalf("status %d, %s, %v", status, text, err)
			}
			done()
		}
	}
}

// TestReload sends SIGHUP, once with a good and once with a broken config: the server goes on serving after both.
func TestReload(t *testing.T) {
	dir, l := t.TempDir(), newLedger()
	config := filepath.Join(t.TempDir(), "strandline.yml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("{}\n")
	s := serve(t, dir, "--config", config)
	first := time.Now().Add(-time.Hour).UnixMilli()
	for i, text := range []string{"{}\n", "no-such-key: 1\n", "{}\n"} {
		write(text)
		size := len(s.tail())
		s.signal(syscall.SIGHUP)
		await(t, "a line in the log about the reload", func() error {
			if len(s.tail()) == size {
				return fmt.Errorf("nothing logged after SIGHUP %d", i)
			}
			return nil
		})
		fill(t, s.base, l, first+int64(i*10), 10)
	}
	l.check(t, s.base, first, first+30)
	s.terminate(t)
}
