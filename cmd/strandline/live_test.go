package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/strandline-db/strandline/server/live/client"
)

func TestSparkline(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{
		{nil, "        "},
		{[]float64{1, 1}, "      ▁▁"},
		{[]float64{0, 1, 2, 3, 4, 5, 6, 7}, "▁▂▃▄▅▆▇█"},
		{[]float64{9, 9, 9, 0, 1, 2, 3, 4, 5, 6, 7}, "▁▂▃▄▅▆▇█"},
		{[]float64{math.NaN(), -math.MaxFloat64, math.MaxFloat64, math.Inf(1), math.Inf(-1)}, "    ▁██▁"},
	} {
		if got := sparkline(c.values, 8); got != c.want {
			t.Errorf("%v: got %q, want %q", c.values, got, c.want)
		}
	}
}

func TestLiveTableFits(t *testing.T) {
	for _, width := range []int{1, 7, 20, 80, 200} {
		for _, height := range []int{1, 5, 40} {
			tb := newTable(client.Query{Expr: "sum(m)\x1b[31m", Step: time.Second})
			for i := range 20 {
				for j := range 10 {
					tb.take(&client.Update{Time: time.Unix(int64(i), 0), Samples: []client.Sample{
						{Labels: map[string]string{"__name__": "世界", "i": strconv.Itoa(j), "x": "a\x1bb"}, Value: float64(i * j)},
						{Labels: map[string]string{"h": strconv.Itoa(j)}, Histogram: json.RawMessage(`{"count":"5","sum":"1.25"}`)},
					}}, time.Unix(int64(i), 0))
				}
			}
			tb.take(&client.Update{Time: time.Unix(20, 0), Stale: []map[string]string{{"h": "0"}}}, time.Unix(20, 0))
			lines := tb.lines(width, height)
			if len(lines) >= max(height, 4) {
				t.Errorf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if runewidth.StringWidth(l) > width || strings.ContainsRune(l, 0x1b) {
					t.Errorf("%dx%d: got %q", width, height, l)
				}
			}
		}
	}
}

func TestLiveTableTakesCorrections(t *testing.T) {
	tb := newTable(client.Query{Expr: "m", Step: time.Second})
	put := func(sec int64, v float64) {
		tb.take(&client.Update{Time: time.Unix(sec, 0), Samples: []client.Sample{{Labels: map[string]string{"a": "b"}, Value: v}}}, time.Unix(sec, 0))
	}
	put(10, 1)
	put(11, 2)
	put(11, 3)
	put(14, 4)
	put(10, 5)
	if got, want := fmt.Sprint(tb.rows[`{a="b"}`].last), "[5 3 NaN NaN 4]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestLiveTableShowsTheNewestStep: what is not in it has no value, whatever comes later of
// the steps before.
func TestLiveTableShowsTheNewestStep(t *testing.T) {
	tb := newTable(client.Query{Expr: "m", Step: time.Second})
	put := func(sec int64, series ...string) {
		u := &client.Update{Time: time.Unix(sec, 0), Samples: []client.Sample{}}
		for _, s := range series {
			u.Samples = append(u.Samples, client.Sample{Labels: map[string]string{"a": s}, Value: float64(sec)})
		}
		tb.take(u, time.Unix(sec, 0))
	}
	want := func(at int64, rows ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(tb.rows)); !slices.Equal(got, rows) || tb.at.Unix() != at {
			t.Errorf("got %v at %d, want %v at %d", got, tb.at.Unix(), rows, at)
		}
	}
	put(10, "x", "y")
	put(11, "x") // y ended while nobody was connected: no stale frame tells of it
	want(11, `{a="x"}`)
	put(10, "x", "y") // a correction
	want(11, `{a="x"}`)
	put(11, "x", "z")
	want(11, `{a="x"}`, `{a="z"}`)
	put(12)
	want(12)
}

func TestLiveTableTellsSilence(t *testing.T) {
	start := time.Unix(100, 0)
	tb := newTable(client.Query{Expr: "m", Step: 2 * time.Second})
	tb.take(&client.Update{Time: start, Samples: []client.Sample{}}, start)
	for after, want := range map[time.Duration]string{time.Second: "", 6 * time.Second: "", 7*time.Second + 900*time.Millisecond: "nothing new for 7s"} {
		tb.note = ""
		if changed := tb.silence(start.Add(after)); tb.note != want || changed != (want != "") {
			t.Errorf("after %s: got %q %v, want %q", after, tb.note, changed, want)
		}
	}
	if tb.take(&client.Update{Time: start.Add(2 * time.Second), Samples: []client.Sample{}}, start.Add(9*time.Second)); tb.note != "" {
		t.Errorf("got %q", tb.note)
	}
	tb = newTable(client.Query{Expr: "m", Samples: true})
	tb.take(&client.Update{Time: start, Samples: []client.Sample{}}, start)
	if tb.silence(start.Add(time.Hour)) {
		t.Errorf("samples need not come: got %q", tb.note)
	}
}

// TestLiveStepIsNotZero: a table needs to know how far its steps are from each other.
func TestLiveStepIsNotZero(t *testing.T) {
	f := &liveFlags{servers: []string{"http://127.0.0.1:1"}, step: "0s"}
	if err := runLive(t.Context(), f, "up", io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "--step") {
		t.Errorf("got %v", err)
	}
}

func TestLiveTableValues(t *testing.T) {
	for v, want := range map[float64]string{
		1795903842: "1795903842", -12345678901: "-12345678901", 0.1 + 0.2: "0.3", 1e21: "1e+21", 5e-324: "4.9406565e-324", 1795903842.25: "1.7959038e+09", math.Inf(1): "+Inf",
	} {
		if got, _ := cell(&client.Sample{Value: v}); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}

// TestLiveGoesOnAfterAKill kills the server under subscribed clients: after it is back
// no step is missing and none comes twice.
func TestLiveGoesOnAfterAKill(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "--self-scrape-interval", "100ms")
	addr := strings.TrimPrefix(p.url, "http://")
	c, err := client.New([]string{p.url}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var clients sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	enough := make(chan struct{}, 8)
	for _, expr := range []string{"up", "count(up)", "rate(process_cpu_seconds_total[10s])", "vector(time())"} {
		sub, err := c.Subscribe(client.Query{Expr: expr, Step: 200 * time.Millisecond, Backfill: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() { followSteps(ctx, t, expr, sub, enough) })
	}
	for range 4 {
		<-enough
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // it was killed: that is its error
	p = start(t, dir, "--self-scrape-interval", "100ms", "--listen", addr)
	clients.Wait()
	p.stop()
}

// followSteps reads until some steps after the break, which enough announces.
func followSteps(ctx context.Context, t *testing.T, expr string, sub *client.Subscription, enough chan<- struct{}) {
	revs := map[int64]uint32{}
	var last, broke int64
	n := 0
	for u, err := range sub.All(ctx) {
		if err != nil || u.Dropped != nil || u.Err != nil {
			t.Errorf("%s: %+v %v", expr, u, err)
			return
		}
		if u.Samples == nil {
			continue
		}
		at := u.Time.UnixMilli()
		old, there := revs[at]
		if there && u.Rev <= old || !there && u.Rev == 0 && last != 0 && at != last+200 {
			t.Errorf("%s: step %d rev %d after %d", expr, at, u.Rev, last)
		}
		revs[at] = u.Rev
		if u.Rev > 0 {
			continue
		}
		last = at
		if n++; n == 10 {
			broke = time.Now().UnixMilli()
			enough <- struct{}{}
		}
		if n > 40 && at > broke+2000 {
			return
		}
	}
}

func TestLiveCommand(t *testing.T) {
	p := start(t, t.TempDir(), "--self-scrape-interval", "100ms")
	cmd := exec.Command(binary, "live", "up", "--server", p.url, "--step", "200ms")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; n < 3 && lines.Scan(); {
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if len(l.Samples) == 1 && string(l.Samples[0].Value) == `"1"` {
			n++
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to its end
		continue
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command(binary, "live", "(", "--server", p.url).CombinedOutput(); err == nil || !strings.Contains(string(out), "bad_data") {
		t.Errorf("%v %s", err, out)
	}
	p.stop()
	if !strings.Contains(p.seen.String(), "msg=stopped") {
		t.Error("it did not stop well")
	}
}
