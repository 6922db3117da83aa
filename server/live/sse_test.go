package live

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/server/live/frame"
)

// stream reads server-sent events.
type stream struct {
	t      *testing.T
	lines  *bufio.Scanner
	id     string
	cancel context.CancelFunc
}

func (f *fixture) stream(lastID string, args url.Values) *stream {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+f.addr+PathSSE+"?"+args.Encode(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		body, _ := io.ReadAll(res.Body)
		f.t.Fatalf("%v %s", res, body)
	}
	return &stream{t: f.t, lines: bufio.NewScanner(res.Body), cancel: cancel}
}

// next returns the next event of the type.
func (s *stream) next(kind string) *frame.Frame {
	s.t.Helper()
	event := ""
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch name {
		case "event":
			event = value
		case "id":
			s.id = value
		case "data":
			f, err := frame.ParseFrame([]byte(value))
			if err != nil || f.Type != event {
				s.t.Fatalf("%s: %v", s.lines.Text(), err)
			}
			if event == kind {
				return f
			}
		}
	}
	s.t.Fatalf("it ended: %v", s.lines.Err())
	return nil
}

func TestEventsResume(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now(), 1, "__name__", "m")
	args := url.Values{"query": {"m", "vector(2)", "("}, "step": {"100ms", "200ms", "1s"}}
	s := f.stream("", args)
	if e := s.next(frame.Error); e.ID != "2" || e.ErrorType != "bad_data" {
		t.Errorf("got %+v", e)
	}
	last := map[string]frame.Time{}
	read := func(n int) {
		t.Helper()
		for range n {
			d := s.next(frame.Data)
			distance := map[string]frame.Time{"0": 100, "1": 200}[d.ID]
			if d.Rev == 0 && last[d.ID] != 0 && d.T != last[d.ID]+distance {
				t.Fatalf("%s: step %d after %d", d.ID, d.T, last[d.ID])
			}
			last[d.ID] = max(last[d.ID], d.T)
		}
	}
	read(12)
	s.cancel()
	until(t, "its going is noticed", func() bool { return len(f.all()) == 0 })
	s = f.stream(s.id, args)
	read(24)
}

// TestEventsResumeFromTheStart: a stream that broke before a query had any data loses
// nothing of it: not the steps since it began, nor a sample.
func TestEventsResumeFromTheStart(t *testing.T) {
	f := newFixture(t, nil)
	args := url.Values{"query": {"vector(1)", "m", "("}, "step": {"100ms", "1s", "1s"}, "mode": {"", "samples", ""}, "backfill": {"0s", "0s", "3h"}}
	s := f.stream("", args)
	s.next(frame.Ack)
	s.next(frame.Ack)
	from, id := time.Now(), s.id
	s.cancel()
	until(t, "its going is noticed", func() bool { return len(f.all()) == 0 })
	f.put(from.Add(-10*time.Second), 5, "__name__", "m")
	f.put(from.Add(time.Hour), 6, "__name__", "m")
	for i := range 2 { // the second time from where the first has come to, as a page says it
		cursors, err := parseCursor(id, 3, time.Now())
		if now := frame.Time(time.Now().UnixMilli()); err != nil || cursors[1].resume > now || cursors[1].resume < now-60_000 {
			t.Fatalf("got %v at %d, %v", cursors, now, err)
		}
		if i == 1 {
			args["last_event_id"], id = []string{id}, ""
		}
		s = f.stream(id, args)
		samples, step := map[string]bool{}, cursors[0].resume
		for len(samples) < 2 || step < cursors[0].resume+1000 {
			switch d := s.next(frame.Data); {
			case d.ID == "1":
				samples[string(d.V[0].Raw)] = true
			case d.Rev == 0 && d.T != step+100:
				t.Fatalf("step %d came after %d", d.T, step)
			case d.Rev == 0:
				step = d.T
			}
		}
		if !samples[`"5"`] || !samples[`"6"`] {
			t.Fatalf("got %v", samples)
		}
		id = s.id
		s.cancel()
	}
}

// TestHeartbeatsCarryIDs: a quiet stream's cursor goes on.
func TestHeartbeatsCarryIDs(t *testing.T) {
	f := newFixture(t, &Options{Heartbeat: 50 * time.Millisecond})
	s := f.stream("", url.Values{"query": {"m"}, "mode": {"samples"}})
	s.next(frame.Ack)
	first := s.id
	for s.id == first {
		h := s.next(frame.Heartbeat)
		if c, err := parseCursor(s.id, 1, time.Now()); err != nil || c[0].resume != h.Known["0"] {
			t.Fatalf("id %q, %+v, %v", s.id, h, err)
		}
	}
}

// TestCursorsThatAreNone: a word, which base 36 would read as a time, is told what a cursor
// looks like; the cursor of a query that had nothing to resume after is one.
func TestCursorsThatAreNone(t *testing.T) {
	f := newFixture(t, nil)
	now := time.Now()
	good := strconv.FormatInt(now.UnixMilli(), 36)
	for _, id := range []string{"garbage", "1", "zzzzzzzz", "0.garbage", good + ".", good + ".word", good + "-" + good, "12345678901234"} {
		for _, path := range []string{PathSSE + "?query=m", PathSSE + "?query=m&last_event_id=" + id} {
			h := http.Header{}
			if !strings.Contains(path, "last_event_id") {
				h.Set("Last-Event-ID", id)
			}
			res := f.get(path, h)
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != 400 || !strings.Contains(string(body), `"errorType":"bad_data"`) || !strings.Contains(string(body), "such as mwv73z14") {
				t.Errorf("%s: %d %s %v", id, res.StatusCode, body, err)
			}
		}
	}
	for _, id := range []string{"0", good, good + "." + good} {
		if _, err := parseCursor(id, 1, now); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestBadStreams(t *testing.T) {
	f := newFixture(t, nil)
	for path, id := range map[string]string{
		"": "", "?query=(": "", "?query=m&step=x": "", "?query=m&query=n&query=o&step=1s&step=2s": "", "?query=m&mode=x": "",
		"?query=m": "1-2", "?query=m&backfill=1s": "?", "?query=m&step=1m&backfill=-1": "",
	} {
		res := f.get(PathSSE+path, http.Header{"Last-Event-Id": {id}})
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 400 || !strings.Contains(string(body), `"errorType":"bad_data"`) {
			t.Errorf("%s: %d %s %v", path, res.StatusCode, body, err)
		}
	}
	res, err := http.Post("http://"+f.addr+PathSSE+"?query=m", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != 405 {
		t.Errorf("got %d", res.StatusCode)
	}
	if res := f.get(PathLive, nil); res.StatusCode != 426 {
		t.Errorf("got %d", res.StatusCode)
	}
}
