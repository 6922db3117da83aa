package live

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/query"
	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/shard/model"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// Started by fasthttp, once a process or with a delay of its own.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// fixture is a live server on a port, over a store in memory.
type fixture struct {
	*Server
	t     *testing.T
	store *querytest.Store
	query *query.Engine
	hub   *qlive.Hub
	addr  string
}

func newFixture(t *testing.T, o *Options) *fixture {
	t.Helper()
	return newNode(t, o, querytest.New())
}

// newNode is one of several over the same data.
func newNode(t *testing.T, o *Options, store *querytest.Store) *fixture {
	t.Helper()
	f := &fixture{t: t, store: store}
	var err error
	if f.query, err = query.New(f.store, nil); err != nil {
		t.Fatal(err)
	}
	if f.hub, err = qlive.New(f.store, f.store, f.query, &qlive.Options{Delay: 50 * time.Millisecond, MaxBackfill: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if f.Server, err = New(f.hub, o); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.addr = ln.Addr().String()
	hs := &fasthttp.Server{KeepHijackedConns: true, ReadBufferSize: 16 << 10, ReadTimeout: patience, Handler: func(rc *fasthttp.RequestCtx) {
		if !f.Handle(rc) {
			rc.SetStatusCode(fasthttp.StatusNotFound)
		}
	}}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Error("close:", err)
		}
		if err := f.hub.Close(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
		if err := hs.ShutdownWithContext(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return f
}

// put stores one float.
func (f *fixture) put(at time.Time, v float64, series ...string) {
	f.t.Helper()
	b := &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings(series...)), To: 1}},
		T: []int64{at.UnixMilli()}, V: []float64{v}}
	if _, err := f.store.Append(context.Background(), b); err != nil {
		f.t.Fatal(err)
	}
}

// rawClient is a WebSocket that looks like a browser's.
type rawClient struct {
	t  *testing.T
	ws *websocket.Conn
}

func (f *fixture) dial(path string, header http.Header) *rawClient {
	f.t.Helper()
	ws, res, err := (&websocket.Dialer{}).Dial("ws://"+f.addr+path, header)
	if err != nil {
		f.t.Fatal(err, res)
	}
	f.t.Cleanup(func() { _ = ws.Close() })
	return &rawClient{f.t, ws}
}

func (c *rawClient) send(msg string) {
	c.t.Helper()
	if err := c.ws.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
		c.t.Fatal(err)
	}
}

// raw returns the next frame as it came.
func (c *rawClient) raw() string {
	c.t.Helper()
	if err := c.ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	kind, msg, err := c.ws.ReadMessage()
	if err != nil || kind != websocket.TextMessage {
		c.t.Fatal(kind, err)
	}
	return string(msg)
}

// next returns the next frame of one of the types.
func (c *rawClient) next(types ...string) *frame.Frame {
	c.t.Helper()
	for {
		msg := c.raw()
		fr, err := frame.ParseFrame([]byte(msg))
		if err != nil {
			c.t.Fatalf("%s: %v", msg, err)
		}
		for _, t := range types {
			if fr.Type == t {
				return fr
			}
		}
		if fr.Type == frame.Error {
			c.t.Fatalf("got %s", msg)
		}
	}
}

// closed expects the connection to be closed with the code.
func (c *rawClient) closed(code int) {
	c.t.Helper()
	for {
		if err := c.ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
			c.t.Fatal(err)
		}
		if _, _, err := c.ws.ReadMessage(); err != nil {
			if !websocket.IsCloseError(err, code) {
				c.t.Fatalf("want code %d, got %v", code, err)
			}
			return
		}
	}
}

// until waits for what another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain until " + what)
		}
	}
}

func (f *fixture) get(path string, header http.Header) *http.Response {
	f.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "http://"+f.addr+path, strings.NewReader(""))
	if err != nil {
		f.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = res.Body.Close() })
	return res
}
