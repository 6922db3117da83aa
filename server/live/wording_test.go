package live

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/frame"
)

// TestErrorsSayWhatToDo: each names the fault once and what is allowed.
func TestErrorsSayWhatToDo(t *testing.T) {
	f := newFixture(t, &Options{MaxSubs: 1})
	c := f.dial(PathLive, nil)
	expect := func(c *rawClient, msg, want string) {
		t.Helper()
		c.send(msg)
		if e := c.next(frame.Error); !strings.HasPrefix(e.Error, want) || strings.Count(e.Error, "bad ") > 1 {
			t.Errorf("%s:\ngot  %s\nwant %s", msg, e.Error, want)
		}
	}
	for msg, want := range map[string]string{
		`{"op":"dance"}`: `unknown operation: "op" is subscribe, resume, unsubscribe or set`,
		`{"op":"resume","id":"x","query":"m","resume":"garbage"}`:  `bad frame: "garbage" is not a time in Unix seconds, such as 1763900000.25`,
		`{"op":"subscribe","id":"x","query":"m","stpe":"1s"}`:      `bad frame: unknown field "stpe"; known are op, id, query, step, mode, backfill, resume, seen, applied and subs`,
		`{"op":"subscribe","id":"x","query":"m","step":"fast"}`:    `bad frame: "fast" is no duration such as "1s" or "250ms", and no number of seconds`,
		`{"op":"subscribe","id":7,"query":"m"}`:                    `bad frame: "id" can't be a JSON number`,
		`[]`:                                                       `bad frame: "the message" can't be a JSON array`,
		`{"op":"subscribe","id":"x","query":"m","mode":"fast"}`:    `bad frame: "mode" must be left out or "samples"`,
		`{"op":"set","subs":[{"id":"x"}]}`:                         `bad frame: subs[0]: "query" is missing`,
		`{"op":"subscribe","id":"x","query":"m","applied":"soon"}`: `bad applied: "soon" is not a list of shard:index; take it from the header X-Strandline-Applied`,
		`{"op":"subscribe","id":"x","query":"m[5m]"}`:              `a live query gives a vector or a scalar, not a range vector; put a function around it`,
		`{"op":"unsubscribe","id":"x"}`:                            `no subscription has this id`,
	} {
		expect(c, msg, want)
	}
	c.send(`{"op":"subscribe","id":"1","query":"m"}`)
	c.next(frame.Ack)
	expect(c, `{"op":"subscribe","id":"2","query":"m"}`,
		"connection exceeds the limit of 1 subscriptions; unsubscribe some, use another connection or raise live-max-subscriptions")

	simple := f.dial(PathStream, nil)
	expect(simple, `{"action":"dance","metric":"m"}`, `unknown operation: "action" is subscribe or unsubscribe`)
	expect(simple, `{"op":"subscribe","metric":"m"}`, `bad frame: unknown field "op"; known are action and metric`)
	for _, metric := range []string{"rate(x)", "x + y", `hot{i="1"`, "two words"} {
		msg, err := json.Marshal(frame.Simple{Action: frame.OpSubscribe, Metric: metric})
		if err != nil {
			t.Fatal(err)
		}
		simple.send(string(msg))
		if e := simple.next(frame.Error); e.ErrorType != "bad_data" || e.ID != metric || !strings.Contains(e.Error, "is neither a metric's name nor a plain selector") ||
			!strings.Contains(e.Error, PathLive) {
			t.Errorf("%s: got %+v", metric, e)
		}
	}
}

// TestErrorsSayWhatEnded: an error is marked ended if there is no subscription of its id, and only then.
func TestErrorsSayWhatEnded(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m"}`)
	c.next(frame.Ack)
	for _, x := range []struct {
		msg   string
		ended bool
	}{
		{`{"op":"subscribe","id":"a","query":"other"}`, false},
		{`{"op":"subscribe","id":"a","query":"m","stpe":"1s"}`, false},
		{`{"op":"resume","id":"a","query":"m"}`, false},
		{`{"op":"subscribe","id":"b","query":"m(("}`, true},
		{`{"op":"subscribe","id":"b","query":"m","stpe":"1s"}`, true},
		{`{"op":"subscribe","id":"b","query":"m","step":"fast"}`, true},
		{`{"op":"resume","id":"b","query":"m"}`, true},
		{`{"op":"unsubscribe","id":"b"}`, true},
		{`{"op":"subscribe","query":"m"}`, false}, // it names none
	} {
		c.send(x.msg)
		if e := c.next(frame.Error); e.Ended != x.ended {
			t.Errorf("%s: got %+v", x.msg, e)
		}
	}
	f.put(time.Now(), 1, "__name__", "m")
	if d := c.next(frame.Data); d.ID != "a" {
		t.Errorf("the subscription that was there does not go on: got %+v", d)
	}

	simple := f.dial(PathStream, nil)
	simple.send(`{"action":"subscribe","metric":"m"}`)
	simple.next(frame.Ack)
	simple.send(`{"action":"subscribe","metric":"m"}`)
	if e := simple.next(frame.Error); e.Ended {
		t.Errorf("got %+v", e)
	}
}

// TestSimpleSelectors: what may stand where a metric is named.
func TestSimpleSelectors(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now(), 1, "__name__", "hot", "i", "1")
	f.put(time.Now(), 1, "__name__", "http.server", "i", "1")
	for _, metric := range []string{"hot", `hot{i="1"}`, `{"hot",i!="2"}`, "http.server", `{"http.server"}`} {
		c := f.dial(PathStream, nil)
		msg, err := json.Marshal(frame.Simple{Action: frame.OpSubscribe, Metric: metric})
		if err != nil {
			t.Fatal(err)
		}
		c.send(string(msg))
		c.next(frame.Ack)
		f.put(time.Now(), 2, "__name__", "hot", "i", "1")
		f.put(time.Now(), 2, "__name__", "hot", "i", "2")
		f.put(time.Now(), 2, "__name__", "http.server", "i", "1")
		if d := c.next(frame.Data); d.ID != metric || len(d.V) != 1 && metric != "hot" {
			t.Errorf("%s: got %+v", metric, d)
		}
	}
}

// TestUnknownParameters: one that is misspelt is told, with those that there are.
func TestUnknownParameters(t *testing.T) {
	f := newFixture(t, nil)
	for path, want := range map[string]string{
		PathSSE + "?query=m&setp=1s":   `bad parameter \"setp\": known are query, step, backfill, mode, applied, last_event_id`,
		PathSSE + "?qurey=m":           `bad parameter \"qurey\": known are`,
		PathSSE + "?query=m&step=fast": `bad parameter \"step\": \"fast\" is no duration`,
		PathSSE + "?query=m&mode=fast": `bad parameter: \"mode\" must be left out or \"samples\"`,
	} {
		res := f.get(path, nil)
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 400 || !strings.Contains(string(body), want) || strings.Count(string(body), "bad ") > 1 {
			t.Errorf("%s: %d %s %v", path, res.StatusCode, body, err)
		}
	}
	for _, path := range []string{PathLive, PathStream} {
		_, res, err := (&websocket.Dialer{}).Dial("ws://"+f.addr+path+"?metric=m", http.Header{})
		if err == nil || res == nil || res.StatusCode != 400 {
			t.Fatalf("%s: got %v %v", path, res, err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), `bad parameter \"metric\": this path takes none`) {
			t.Errorf("%s: got %s %v", path, body, err)
		}
	}
	until(t, "nothing is left", func() bool { return len(f.all()) == 0 })
}
