package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/frame"
)

const laggardSeries = 300

// TestLaggards is fault 22: of many subscribers one in ten never reads. The others get
// each step in order, what was acknowledged is stored, and the laggards are cut and hold
// little memory. A soak has 1,000; how long the ingest took is for whoever reads the log.
func TestLaggards(t *testing.T) {
	subscribers, requests := 60, 20
	if *soak {
		subscribers, requests = 1000, 300
	}
	s, l := serve(t, t.TempDir(), "--live-write-timeout=3s"), newLedger()
	first := time.Now().UnixMilli()
	last := first
	ingest := func(what string) time.Duration {
		t.Helper()
		start := time.Now()
		for range requests {
			last = max(last+1, time.Now().UnixMilli())
			body, done := l.request(0, laggardSeries, last)
			if status, text, err := post(t.Context(), http.DefaultClient, s.base, v1, body); err != nil || status != http.StatusNoContent {
				t.Fatalf("%v %d %s", err, status, text)
			}
			done()
		}
		took := time.Since(start)
		t.Logf("%d samples %s: %s", requests*laggardSeries, what, took.Round(time.Millisecond))
		return took
	}
	ingest("first") // also makes the series
	alone := ingest("alone")
	var readers sync.WaitGroup
	var stop atomic.Bool
	for i := range subscribers * 9 / 10 {
		query, step := "sum(ledger)", time.Second
		if i%10 == 0 { // what the laggards ask for too
			query, step = "ledger * time()", 100*time.Millisecond
		}
		r := s.live(t)
		r.send(frame.Request{Op: frame.OpSubscribe, Sub: frame.Sub{ID: "a", Query: query, Step: frame.Duration(step)}})
		if got := r.answer(); got != "ack subscribe a" {
			t.Fatal(got)
		}
		readers.Go(func() { r.inOrder(step, &stop) })
	}
	read := ingest("with readers")
	before := s.anon(t)
	laggards := make([]net.Conn, subscribers/10)
	for i := range laggards {
		r := s.live(t)
		laggards[i] = r.ws.NetConn()
		if err := laggards[i].(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
			t.Fatal(err)
		}
		r.send(frame.Request{Op: frame.OpSubscribe, Sub: frame.Sub{ID: "a", Query: "ledger * time()", Step: frame.Duration(100 * time.Millisecond), Backfill: frame.Duration(time.Minute)}})
	}
	lagging := ingest("with laggards too")
	t.Logf("against alone: readers %.2f, laggards too %.2f", float64(read)/float64(alone), float64(lagging)/float64(alone))
	grown := s.anon(t) - before
	t.Logf("%d laggards: %d KiB more", len(laggards), grown>>10)
	if most := int64(len(laggards)*256<<10 + 64<<20); grown > most*memoryFactor { // and what the ingest and the query's steps take
		t.Errorf("memory grew by %d bytes, more than %d", grown, most)
	}
	await(t, "all laggards cut", func() error {
		if n := metric(t, s, `strandline_live_cut_clients_total{reason="slow"}`); n != fmt.Sprint(len(laggards)) {
			return fmt.Errorf("%s are", n)
		}
		return nil
	})
	for i, c := range laggards {
		_ = c.SetReadDeadline(time.Now().Add(patience)) // a failure shows in the read
		_, err := io.Copy(io.Discard, c)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("laggard %d is still connected", i)
		}
	}
	stop.Store(true)
	readers.Wait()
	l.check(t, s.base, first, last+1)
}

// inOrder reads steps until it is told to stop: each follows on the one before, unless the
// server says that it dropped some.
func (c *liveConn) inOrder(step time.Duration, stop *atomic.Bool) {
	last := frame.Time(0)
	for n := 0; n == 0 || !stop.Load(); {
		_ = c.ws.SetReadDeadline(time.Now().Add(patience))
		kind, msg, err := c.ws.ReadMessage()
		if err != nil || kind != websocket.TextMessage {
			c.t.Errorf("a reader was cut: %v", err)
			return
		}
		if bytes.HasPrefix(msg, []byte(`{"type":"dropped"`)) {
			last = 0
		}
		if !bytes.HasPrefix(msg, []byte(`{"type":"data"`)) {
			continue
		}
		n++
		head, _, _ := bytes.Cut(msg, []byte(`,"v":`)) // the values are many
		f, err := frame.ParseFrame(append(head, '}'))
		switch {
		case err != nil:
			c.t.Errorf("%s: %v", head, err)
			return
		case f.Rev > 0:
			continue
		case last != 0 && f.T != last+frame.Time(step.Milliseconds()):
			c.t.Errorf("step %d came after %d", f.T, last)
			return
		}
		last = f.T
	}
}

// metric returns the value of a line of /metrics; "0": it is not there.
func metric(t *testing.T, s *strandline, name string) string {
	t.Helper()
	res, err := http.Get(s.base + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return "0"
}
