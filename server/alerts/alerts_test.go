package alerts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/rules"
	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/server/webhook/hooktest"
	"github.com/strandline-db/strandline/shard/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret    = "a secret of good length"
	subscribe = `{"metric":"load","labels":{"job":"a"},"threshold":10,"comparison":">","for":"30s","interval":"5s","notification_method":"webhook",
		"url":"http://hook.example/services/T0KEN","secret":"a secret of good length","name":"High load"}`
)

// world is a storage of samples and of records, and a network with the receiver.
type world struct {
	t      *testing.T
	start  time.Time
	data   *querytest.Store
	engine *query.Engine
	store  *hooktest.Store
	net    *hooktest.Network
	log    *lockedBuffer
	broken atomic.Bool // the receiver answers 500
	nodes  []*node
	values map[string]float64
}

// node is a service with its leadership.
type node struct {
	*Service
	leads   atomic.Bool
	changed chan struct{}
}

func (n *node) Leads() bool              { return n.leads.Load() }
func (n *node) Changed() <-chan struct{} { return n.changed }

func (n *node) lead(is bool) {
	n.leads.Store(is)
	n.changed <- struct{}{}
}

type lockedBuffer struct {
	sync.Mutex
	b bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.b.Write(p)
}

// inBubble runs f in a world where time is the test's.
func inBubble(t *testing.T, f func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, start: time.Now(), data: querytest.New(), store: hooktest.NewStore(), log: &lockedBuffer{}, values: map[string]float64{}}
		var err error
		if w.engine, err = query.New(w.data, nil); err != nil {
			t.Fatal(err)
		}
		w.net = hooktest.NewNetwork(func(rw http.ResponseWriter, _ *http.Request) {
			if w.broken.Load() {
				rw.WriteHeader(500)
			}
		})
		w.net.Name("hook.example", []string{"93.184.216.34"})
		defer func() {
			for _, n := range w.nodes {
				n.Close()
			}
			w.net.Close()
			for _, s := range []string{secret, "T0KEN"} {
				if strings.Contains(w.log.b.String(), s) {
					t.Errorf("%q was logged", s)
				}
			}
		}()
		f(w)
	})
}

// open starts a service, as a process does; leads may be changed later.
func (w *world) open(leads bool, change func(*Options)) *node {
	w.t.Helper()
	n := &node{changed: make(chan struct{}, 1)}
	n.leads.Store(leads)
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o := &Options{Store: w.store, Query: rules.EngineQuery(w.engine, "alerts"), Parser: w.engine.Parser(), Leadership: n, Logger: log, Audit: log,
		Webhook: webhook.Options{Resolver: w.net, Dialer: w.net, Logger: log, Random: func() float64 { return 0 }}}
	if change != nil {
		change(o)
	}
	var err error
	if n.Service, err = New(o); err != nil {
		w.t.Fatal(err)
	}
	w.nodes = append(w.nodes, n)
	return n
}

// until lets time go on, with a sample of each series every 5 s, to d after the start.
func (w *world) until(d time.Duration) {
	w.t.Helper()
	for end := w.start.Add(d); time.Now().Before(end); {
		w.write()
		time.Sleep(min(5*time.Second, time.Until(end)))
	}
	synctest.Wait()
}

func (w *world) write() {
	b := &model.Batch{}
	for name, v := range w.values {
		n := len(b.T)
		b.T, b.V = append(b.T, time.Now().UnixMilli()), append(b.V, v)
		b.Series = append(b.Series, model.BatchSeries{Key: model.AppendKey(nil, labels.FromStrings("__name__", "load", "job", "a", "instance", name)), From: n, To: n + 1})
	}
	if _, err := w.data.Append(context.Background(), b); err != nil {
		w.t.Fatal(err)
	}
}

// call asks a node over HTTP.
func (w *world) call(n *node, method, path, body string, headers ...string) (int, string) {
	w.t.Helper()
	rc := &fasthttp.RequestCtx{}
	rc.Request.Header.SetMethod(method)
	rc.Request.SetRequestURI(path)
	rc.Request.Header.SetHost("here.example")
	for i := 0; i+1 < len(headers); i += 2 {
		rc.Request.Header.Set(headers[i], headers[i+1])
	}
	rc.Request.SetBodyString(body)
	if !n.Handle(rc) {
		w.t.Fatalf("%s is not handled", path)
	}
	answer := string(rc.Response.Body())
	if strings.Contains(answer, secret) || strings.Contains(answer, "T0KEN") {
		w.t.Fatalf("a secret is in the answer %s", answer)
	}
	return rc.Response.StatusCode(), answer
}

// subscribe returns the new subscription's id.
func (w *world) subscribe(n *node, body string) string {
	w.t.Helper()
	code, answer := w.call(n, "POST", pathSubscribe, body)
	var a struct{ Data view }
	if err := json.Unmarshal([]byte(answer), &a); err != nil || code != 201 {
		w.t.Fatalf("%d %s", code, answer)
	}
	return a.Data.ID
}

func (w *world) show(n *node, id string) view {
	w.t.Helper()
	code, answer := w.call(n, "GET", pathSubscribe+"/"+id, "")
	var a struct{ Data view }
	if err := json.Unmarshal([]byte(answer), &a); err != nil || code != 200 {
		w.t.Fatalf("%d %s", code, answer)
	}
	return a.Data
}

// told lists what the receiver was told, each delivery once: "id: state instance, ...".
func (w *world) told() (list []string) {
	seen := map[string]bool{}
	for _, g := range w.net.Got() {
		var b body
		if err := json.Unmarshal(g.Body, &b); err != nil {
			w.t.Fatal(err)
		}
		if err := webhook.Verify(secret, g.Header.Get(webhook.HeaderSignature), g.Body, g.At, time.Minute); err != nil {
			w.t.Fatal(err)
		}
		id := g.Header.Get(webhook.HeaderDelivery)
		if seen[id] {
			continue
		}
		seen[id] = true
		var parts []string
		for _, e := range b.Alerts {
			parts = append(parts, e.State+" "+e.Labels.Get("instance")+" "+fmt.Sprint(float64(e.Value)))
		}
		slices.Sort(parts)
		list = append(list, fmt.Sprint(b.Sequence, ": ", strings.Join(parts, ", ")))
	}
	return list
}

func (w *world) expect(what string, got, want any) {
	w.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("%s:\ngot  %v\nwant %v\nlog:\n%s", what, got, want, w.log.b.String())
	}
}

func TestFiresAndResolves(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, nil)
		id := w.subscribe(n, subscribe)
		w.values = map[string]float64{"x": 5, "y": 5}
		w.until(time.Minute)
		w.expect("state", w.show(n, id).State, "inactive")
		w.values["x"] = 11.5
		w.until(85 * time.Second)
		v := w.show(n, id)
		w.expect("state", v.State, "pending")
		w.expect("target", v.Target, "http://hook.example:80")
		w.expect("told", len(w.net.Got()), 0)
		w.until(100 * time.Second)
		w.expect("state", w.show(n, id).State, "firing")
		w.expect("told", w.told(), []string{"1: firing x 11.5"})
		w.values["x"], w.values["y"] = 3, 20
		w.until(3 * time.Minute)
		w.values["y"] = 0
		w.until(4 * time.Minute)
		w.expect("told", w.told(), []string{"1: firing x 11.5", "2: resolved x 11.5", "3: firing y 20", "4: resolved y 20"})
		v = w.show(n, id)
		w.expect("in the end", fmt.Sprint(v.State, len(v.Alerts), v.Queued, v.LastError, v.Evaluated.IsZero()), "inactive0 0false")
		var b map[string]any
		if err := json.Unmarshal(w.net.Got()[0].Body, &b); err != nil {
			t.Fatal(err)
		}
		w.expect("condition", b["condition"], `({__name__="load",job="a"}) > 10`)
		w.expect("name", b["name"], "High load")
	})
}

// What is pending or fires goes on over a restart: the time held before counts, and
// nothing is told twice; what ended meanwhile is told.
func TestRestart(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, nil)
		id := w.subscribe(n, subscribe)
		w.values = map[string]float64{"x": 50}
		w.until(15 * time.Second)
		w.expect("state", w.show(n, id).State, "pending")
		n.Close()
		w.until(40 * time.Second)
		n = w.open(true, nil)
		w.until(50 * time.Second)
		w.expect("told", w.told(), []string{"1: firing x 50"})
		w.broken.Store(true)
		for range 3 {
			n.Close()
			n = w.open(true, nil)
			w.until(time.Since(w.start) + 20*time.Second)
		}
		w.expect("told after three restarts", w.told(), []string{"1: firing x 50"})
		n.Close()
		w.values["x"] = 1
		w.until(4 * time.Minute)
		n = w.open(true, nil)
		w.until(5 * time.Minute) // the receiver is down: it is queued
		w.expect("queued", w.show(n, id).Queued, 1)
		n.Close()
		w.broken.Store(false)
		n = w.open(true, nil)
		w.until(6 * time.Minute)
		w.expect("told", w.told(), []string{"1: firing x 50", "2: resolved x 50"})
		w.expect("queued", w.show(n, id).Queued, 0)
	})
}

// Leadership moves between two nodes, and for a while both believe to have it.
func TestTakeoverTellsOnce(t *testing.T) {
	inBubble(t, func(w *world) {
		a, b := w.open(true, nil), w.open(false, nil)
		w.subscribe(b, subscribe) // on the node that does not lead
		w.values = map[string]float64{"x": 50, "y": 1}
		w.until(time.Minute)
		w.expect("told", w.told(), []string{"1: firing x 50"})
		b.lead(true) // and a has not noticed
		w.until(90 * time.Second)
		w.values["y"] = 30
		w.until(3 * time.Minute)
		a.lead(false)
		w.until(4 * time.Minute)
		w.values["x"] = 0
		w.until(5 * time.Minute)
		b.lead(false)
		a.lead(true)
		w.values["y"] = 0
		w.until(6 * time.Minute)
		w.expect("told", w.told(), []string{"1: firing x 50", "2: firing y 30", "3: resolved x 50", "4: resolved y 30"})
		w.expect("left", len(w.store.Records(webhook.Prefix)), 0)
		_, answer := w.call(b, "GET", pathCircuits, "")
		w.expect("b delivers", strings.Contains(answer, `"delivers":false`), true)
		_, answer = w.call(a, "GET", pathCircuits, "")
		w.expect("a delivers", strings.Contains(answer, `"delivers":true`) && strings.Contains(answer, `"state":"closed"`), true)
	})
}

// A store that fails for a while delays what is told; it is told once.
func TestStoreFailure(t *testing.T) {
	for _, after := range []bool{false, true} {
		inBubble(t, func(w *world) {
			n := w.open(true, nil)
			id := w.subscribe(n, subscribe)
			w.values = map[string]float64{"x": 50}
			w.until(20 * time.Second)
			w.store.Fail(func(c *model.RecordChange) error {
				if len(c.Changes) < 2 {
					return nil
				}
				if after { // it is done, but nobody learns so
					w.store.Fail(nil)
					go w.store.ChangeRecords(context.Background(), c)
				}
				return model.ErrUnavailable
			})
			w.until(time.Minute)
			if !after {
				w.expect("error", w.show(n, id).LastError, model.ErrUnavailable.Error())
				w.expect("told", len(w.told()), 0)
			}
			w.store.Fail(nil)
			w.until(90 * time.Second)
			w.expect("told", w.told(), []string{"1: firing x 50"})
		})
	}
}

func TestDeleteEndsAll(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, nil)
		w.broken.Store(true)
		id := w.subscribe(n, subscribe)
		w.values = map[string]float64{"x": 50}
		w.until(2 * time.Minute)
		w.expect("queued", w.show(n, id).Queued, 1)
		code, _ := w.call(n, "DELETE", pathSubscribe+"/"+id, "")
		w.expect("code", code, 200)
		w.until(3 * time.Minute)
		w.expect("records", len(w.store.Records("")), 0)
		code, _ = w.call(n, "DELETE", pathSubscribe+"/"+id, "")
		w.expect("code", code, 404)
		code, _ = w.call(n, "GET", pathSubscribe+"/"+id, "")
		w.expect("code", code, 404)
	})
}

func TestFullQueueDropsTheOldest(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, func(o *Options) { o.Webhook.MaxAge = 1000 * time.Hour })
		w.broken.Store(true)
		id := w.subscribe(n, strings.Replace(subscribe, `"for":"30s",`, "", 1))
		w.values = map[string]float64{"x": 50}
		for i := range maxQueued + 10 {
			w.values["x"] = float64(50 - 50*(i%2))
			w.until(time.Since(w.start) + 5*time.Second)
		}
		v := w.show(n, id)
		w.expect("queued", v.Queued, maxQueued)
		if v.Dropped < 5 {
			t.Fatalf("%d dropped", v.Dropped)
		}
		w.broken.Store(false)
		before := len(w.told())
		w.until(time.Since(w.start) + time.Hour)
		w.expect("told after the drop", len(w.told()) >= before+maxQueued-1, true)
		w.expect("queued", w.show(n, id).Queued, 0)
	})
}

func TestTooManyAlertsChangeNothing(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, nil)
		id := w.subscribe(n, subscribe)
		w.values = map[string]float64{"x": 50}
		w.until(time.Minute)
		for i := range MaxAlerts + 1 {
			w.values[fmt.Sprint(i)] = 50
		}
		w.until(2 * time.Minute)
		v := w.show(n, id)
		w.expect("alerts", len(v.Alerts), 1)
		w.expect("error", strings.Contains(v.LastError, "limit"), true)
		w.expect("told", w.told(), []string{"1: firing x 50"})
	})
}

func TestManyAlertsAtOnceAreSplit(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, nil)
		w.subscribe(n, subscribe)
		for i := range MaxAlerts {
			w.values[fmt.Sprint(i)+strings.Repeat("x", 100)] = 50
		}
		w.until(2 * time.Minute)
		alerts := 0
		for _, s := range w.told() {
			alerts += strings.Count(s, "firing")
		}
		w.expect("alerts", alerts, MaxAlerts)
		if n := len(w.told()); n < 2 {
			t.Fatalf("%d messages", n)
		}
	})
}

func TestStatusCodes(t *testing.T) {
	inBubble(t, func(w *world) {
		n := w.open(true, func(o *Options) { o.MaxSubscriptions = 2 })
		edit := func(old, new string) string {
			if !strings.Contains(subscribe, old) {
				t.Fatalf("%q is not in the body", old)
			}
			return strings.Replace(subscribe, old, new, 1)
		}
		for body, want := range map[string]int{
			"":                          400,
			"{}":                        400,
			"[]":                        400,
			subscribe + "{}":            400,
			edit(`"threshold":10,`, ""): 400,
			edit(`"threshold":10`, `"threshold":"10"`):                         400,
			edit(`">"`, `"above"`):                                             400,
			edit(`"metric":"load"`, `"query":"up"`):                            400, // with labels
			edit(`"metric":"load"`, `"metric":"load","query":"up"`):            400,
			edit(`"metric":"load"`, `"metric":"rate(load)"`):                   400,
			edit(`"metric":"load"`, `"metric":"load{i="`):                      400,
			edit(`"metric":"load"`, `"metric":"load offset 5m"`):               400,
			edit(`"metric":"load","labels":{"job":"a"}`, `"query":"up["`):      400,
			edit(`"metric":"load","labels":{"job":"a"}`, `"query":"up[5m]"`):   400,
			edit(`"metric":"load","labels":{"job":"a"}`, `"query":"'s'"`):      400,
			edit(`"webhook"`, `"email"`):                                       400,
			edit(`http://hook.example/services`, `http://127.0.0.1/x`):         400,
			edit(`http://hook.example/services`, `http://[::ffff:10.0.0.1]/x`): 400,
			edit(`http://hook.example/services`, `ftp://hook.example/x`):       400,
			edit(`http://hook.example`, `http://u:p@hook.example`):             400,
			edit(secret, "short"):                                              400,
			edit(`"5s"`, `"1ms"`):                                              400,
			edit(`"5s"`, `"soon"`):                                             400,
			edit(`"30s"`, `-1`):                                                400,
			edit(`"name"`, `"nom"`):                                            400,
			edit(`"High load"`, `"`+strings.Repeat("x", 129)+`"`):              400,
			`{"metric":"` + strings.Repeat("x", MaxBody) + `"}`:                413,
		} {
			if code, answer := w.call(n, "POST", pathSubscribe, body); code != want {
				t.Errorf("%.200s: got %d %s, want %d", body, code, answer, want)
			}
		}
		code, _ := w.call(n, "POST", pathSubscribe, subscribe)
		w.expect("a good one", code, 201)
		w.expect("denials", bytes.Count(w.log.b.Bytes(), []byte("msg=denied")), 2) // of private addresses
		w.store.Fail(func(*model.RecordChange) error { return model.ErrUnavailable })
		code, _ = w.call(n, "POST", pathSubscribe, subscribe)
		w.expect("without a majority", code, 503)
		w.store.Fail(nil)
		w.subscribe(n, `{"query":"sum(load) # comment","threshold":1e-9,"comparison":"le","for":90,"notification_method":"webhook","url":"https://hook.example/"}`)
		code, _ = w.call(n, "POST", pathSubscribe, subscribe)
		w.expect("beyond the limit", code, 422)
		for _, c := range []string{"PUT", "DELETE"} {
			code, _ = w.call(n, c, pathSubscribe, "")
			w.expect(c, code, 405)
		}
		code, answer := w.call(n, "GET", pathSubscribe, "")
		w.expect("list", fmt.Sprint(code, strings.Count(answer, `"id"`)), "200 2")
	})
}

func TestUnreadableBodies(t *testing.T) {
	for body, want := range map[string]string{
		"":                   "the body must be a JSON object",
		"[]":                 "the body must be a JSON object",
		`{"metric":`:         "the JSON object is cut off",
		`{"threshold":"10"}`: `"threshold" can't be a JSON string`,
		`{"for":"-5m"}`:      `"-5m" is no duration such as "5m"`,
		`{"interval":{}}`:    `{} is no duration such as "5m"`,
		`{"treshold":10}`:    `unknown field "treshold"; known are name, metric`,
	} {
		_, err := Parse([]byte(body), nil, nil)
		if !errors.Is(err, ErrBadRequest) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "alerts.") {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

func TestConditions(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	for _, c := range []struct {
		sub  Subscription
		want string
	}{
		{Subscription{Metric: "a.b", Labels: map[string]string{"x": `"`, "b c": "d"}, Comparison: "ge", Threshold: 1e300}, `({"b c"="d",__name__="a.b",x="\""}) >= 1e+300`},
		{Subscription{Metric: `hot{i="1"}`, Labels: map[string]string{"job": "a"}, Comparison: "gt", Threshold: 1}, `(hot{i="1",job="a"}) > 1`},
		{Subscription{Metric: `{"two words"}`, Comparison: "gt", Threshold: 1}, `({__name__="two words"}) > 1`},
		{Subscription{Query: "up or down # it", Comparison: "lt", Threshold: -0.5}, `(up or down) < -0.5`},
		{Subscription{Query: "time()", Comparison: "ne", Threshold: 3}, `(vector(time())) != 3`},
	} {
		got, err := c.sub.condition(p)
		if err != nil || got != c.want {
			t.Errorf("got %s, %v; want %s", got, err, c.want)
		}
	}
	_, err := (&Subscription{Metric: "rate(x)", Comparison: "gt"}).condition(p)
	if !errors.Is(err, ErrBadRequest) || !strings.Contains(err.Error(), `as "query"`) || !strings.Contains(err.Error(), "/api/v1/live") {
		t.Errorf("got %v", err)
	}
	for in, want := range map[string]string{">": "gt", ">=": "ge", "LT": "lt", "lte": "le", "==": "eq", "!=": "ne", "neq": "ne"} {
		if got, ok := canonical(in); !ok || got != want {
			t.Errorf("%s: got %s", in, got)
		}
	}
}

func FuzzSubscribe(f *testing.F) {
	f.Add([]byte(subscribe))
	f.Add([]byte(`{"query":"1","threshold":0,"comparison":"eq","notification_method":"webhook","url":"http://a.example","for":1.5,"interval":"1h"}`))
	f.Add([]byte(`{"metric":"a","labels":{"":"x"},"threshold":-1e400}`))
	p := parser.NewParser(parser.Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b, p, &webhook.Policy{})
		if err != nil {
			if !errors.Is(err, ErrBadRequest) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, webhook.ErrBadURL) && !errors.Is(err, webhook.ErrForbiddenAddress) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		stored, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(&model.Record{Value: stored})
		if err != nil {
			t.Fatal(err)
		}
		was, err1 := s.condition(p)
		now, err2 := again.condition(p)
		if err1 != nil || err2 != nil || was != now {
			t.Fatalf("%q became %q: %v, %v", was, now, err1, err2)
		}
	})
}
