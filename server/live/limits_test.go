package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	dto "github.com/prometheus/client_model/go"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/shard/model"
)

// lockedBuffer is a log that a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestForeignOriginIsRefusedAndLogged(t *testing.T) {
	var audit lockedBuffer
	f := newFixture(t, &Options{Origins: []string{"https://good.example:8443"}, Audit: slog.New(slog.NewTextHandler(&audit, nil))})
	for origin, ok := range map[string]bool{
		"": true, "http://" + f.addr: true, "https://good.example:8443": true, "HTTPS://Good.Example:8443": true,
		"https://good.example": false, "http://evil.example": false, "null": false, "http://" + f.addr + ".evil.example": false,
		"https://good.example:8443.evil.example": false, "http://evil.example/" + f.addr: false, "::": false,
	} {
		header := http.Header{"Authorization": {"Bearer s3cret"}}
		if origin != "" {
			header.Set("Origin", origin)
		}
		ws, res, err := (&websocket.Dialer{}).Dial("ws://"+f.addr+PathLive+map[bool]string{false: "?token=s3cret"}[ok], header)
		if (err == nil) != ok || res == nil || !ok && res.StatusCode != 403 {
			t.Errorf("%q: %v %v", origin, res, err)
		}
		if ws != nil {
			_ = ws.Close()
		}
		if ok {
			continue
		}
		if !strings.Contains(audit.String(), "origin="+origin) && !strings.Contains(audit.String(), strconv.Quote(origin)) {
			t.Errorf("%q is not in the log", origin)
		}
		if res := f.get(PathSSE+"?query=up", header); res.StatusCode != 403 || res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%q: got %v", origin, res)
		}
	}
	if strings.Contains(audit.String(), "s3cret") {
		t.Error("a secret is in the log")
	}
}

func TestBadMessages(t *testing.T) {
	f := newFixture(t, &Options{MaxMessage: 1024, MaxSubs: 2})
	c := f.dial(PathLive, nil)
	for msg, want := range map[string]string{
		`{"op":"dance","id":"x"}`: "bad_data x", `nonsense`: "bad_data ", `{"op":"subscribe"}`: "bad_data ",
		`{"op":"subscribe","id":"x","query":"("}`:                               "bad_data x",
		`{"op":"subscribe","id":"x","query":"m","stpe":"1s"}`:                   "bad_data x",
		`{"op":"subscribe","id":"x","query":"m","step":"1ms"}`:                  "bad_data x",
		`{"op":"subscribe","id":"x","query":"m","step":-1}`:                     "bad_data x",
		`{"op":"subscribe","id":"x","query":"m","mode":"fast"}`:                 "bad_data x",
		`{"op":"resume","id":"x","query":"m"}`:                                  "bad_data x",
		`{"op":"subscribe","id":"x","query":"m","applied":"?"}`:                 "bad_data x",
		`{"op":"unsubscribe","id":"x"}`:                                         "bad_data x",
		`{"op":"subscribe","id":"x","query":"m+m","mode":"samples"}`:            "bad_data x",
		`{"op":"set","subs":[{"id":"a","query":"m"},{"id":"a","query":"n"}]}`:   "bad_data ",
		`{"op":"subscribe","id":"x","query":"m"} {"op":"unsubscribe","id":"x"}`: "bad_data x",
	} {
		c.send(msg)
		fr, err := frame.ParseFrame([]byte(c.raw()))
		for err == nil && fr.Type == frame.Heartbeat { // one may be due
			fr, err = frame.ParseFrame([]byte(c.raw()))
		}
		if err != nil || fr.Type != frame.Error || fr.ErrorType+" "+fr.ID != want {
			t.Errorf("%s: got %+v %v", msg, fr, err)
		}
	}
	c.send(`{"op":"subscribe","id":"1","query":"m"}`)
	c.next(frame.Ack)
	c.send(`{"op":"subscribe","id":"1","query":"m"}`)
	if e := c.next(frame.Error); e.ErrorType != "bad_data" {
		t.Errorf("got %+v", e)
	}
	c.send(`{"op":"set","subs":[{"id":"1","query":"m"},{"id":"2","query":"m"},{"id":"3","query":"m"}]}`)
	if e := c.next(frame.Error); e.ErrorType != "limit" || e.ID != "3" || !e.Ended {
		t.Errorf("got %+v", e)
	}
	for code, send := range map[int]func(*websocket.Conn) error{
		1003: func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.BinaryMessage, []byte("{}")) },
		1007: func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.TextMessage, []byte("\"\xff\"")) },
		1009: func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.TextMessage, make([]byte, 5000)) },
	} {
		c := f.dial(PathLive, nil)
		if err := send(c.ws); err != nil {
			t.Fatal(err)
		}
		c.closed(code)
	}
}

func TestSeriesLimit(t *testing.T) {
	f := newFixture(t, &Options{MaxSeries: 3})
	for i := range 5 {
		f.put(time.Now(), 1, "__name__", "m", "i", strconv.Itoa(i))
	}
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m","step":"100ms"}`)
	if e := c.next(frame.Error); e.ErrorType != "limit" || !strings.Contains(e.Error, "live-max-series") {
		t.Errorf("got %+v", e)
	}
}

func TestTooManyConnections(t *testing.T) {
	f := newFixture(t, &Options{MaxConns: 2})
	first := f.dial(PathLive, nil)
	f.dial(PathLive, nil)
	if res := f.get(PathSSE+"?query=up", nil); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %v", res)
	}
	_ = first.ws.Close()
	until(t, "there is room", func() bool { return len(f.all()) < 2 })
	f.dial(PathLive, nil)
}

func TestCloseDrains(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now(), 1, "__name__", "m")
	ws := f.dial(PathLive, nil)
	ws.send(`{"op":"subscribe","id":"a","query":"m"}`)
	ws.next(frame.Ack)
	sse := f.get(PathSSE+"?query=m", nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- f.Close(ctx) }()
	if d := ws.next(frame.Drain); d.Reason == "" {
		t.Errorf("got %+v", d)
	}
	ws.closed(1001)
	body, err := io.ReadAll(sse.Body)
	if err != nil || !strings.Contains(string(body), "event: drain\n") {
		t.Errorf("%v, got %s", err, body)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if res := f.get(PathSSE+"?query=m", nil); res.StatusCode != 503 {
		t.Errorf("got %v", res)
	}
}

// TestDrain: those who are there are sent elsewhere, those who come all the same are served.
func TestDrain(t *testing.T) {
	f := newFixture(t, nil)
	ws := f.dial(PathLive, nil)
	ws.send(`{"op":"subscribe","id":"a","query":"m"}`)
	ws.next(frame.Ack)
	sse := f.get(PathSSE+"?query=m", nil)
	f.Drain("it is to go")
	if d := ws.next(frame.Drain); d.Reason != "it is to go" {
		t.Errorf("got %+v", d)
	}
	ws.closed(1001)
	body, err := io.ReadAll(sse.Body)
	if err != nil || !strings.Contains(string(body), "event: drain\n") {
		t.Errorf("%v, got %s", err, body)
	}
	ws = f.dial(PathLive, nil)
	ws.send(`{"op":"subscribe","id":"a","query":"m"}`)
	ws.next(frame.Ack)
}

func TestCloseCutsWhoDoesNotGo(t *testing.T) {
	f := newFixture(t, nil)
	f.dial(PathLive, nil) // which never answers the close
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestLaggards: those who never read are told of the gap or cut, hold little memory,
// and hold up nobody.
func TestLaggards(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := newFixture(t, &Options{WriteTimeout: 2 * time.Second, Writers: 2, Registerer: reg})
	pad := strings.Repeat("x", 200)
	const series = 300
	load := func(n int) {
		for i := range series {
			f.put(time.Now(), float64(n)+0.123456789, "__name__", "m", "i", strconv.Itoa(i), "pad", pad)
		}
	}
	load(0)
	const laggards = 20
	var cut []net.Conn
	for range laggards {
		c := f.dial(PathLive, nil)
		cut = append(cut, c.ws.NetConn())
		_ = c.ws.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10)
		c.send(`{"op":"subscribe","id":"a","query":"m * time()","step":"100ms","backfill":"1m"}`)
	}
	reader := f.dial(PathLive, nil)
	reader.send(`{"op":"subscribe","id":"a","query":"m * time()","step":"100ms"}`)
	reader.next(frame.Ack)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	last := frame.Time(0)
	for n := 0; n < 50; {
		d := reader.next(frame.Data, frame.Dropped)
		if d.Type == frame.Dropped { // a machine that is too slow for the evaluation
			last = 0
		}
		if len(d.V) == 0 || d.Rev > 0 {
			continue
		}
		if last != 0 && d.T != last+100 {
			t.Fatalf("step %d came after %d", d.T, last)
		}
		last = d.T
		n++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > laggards*256<<10+32<<20 { // and the query's ring
		t.Errorf("the heap grew by %d bytes", grown)
	}
	until(t, "the laggards are cut", func() bool { return len(f.all()) == 1 })
	if n := counter(t, reg, "strandline_live_cut_clients_total"); n != laggards {
		t.Errorf("%v were cut", n)
	}
	for _, c := range cut { // and by a reset, so that the kernel keeps nothing for them
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("one that was cut: %v", err)
		}
	}
}

// TestAsksAndDoesNotListen: a client that asks on and takes no answer is not read from, and
// then cut; the answers that wait are few.
func TestAsksAndDoesNotListen(t *testing.T) {
	f := newFixture(t, &Options{WriteTimeout: time.Second})
	c := f.dial(PathLive, nil)
	conns := f.all()
	sent := make(chan int, 1)
	go func() {
		msg := []byte(`{"op":"dance","id":"` + strings.Repeat("x", 200) + `"}`)
		for n := 0; ; n++ {
			if c.ws.WriteMessage(websocket.TextMessage, msg) != nil { // it was cut
				sent <- n
				return
			}
		}
	}()
	most := 0
	until(t, "it is cut", func() bool {
		conns[0].mu.Lock()
		defer conns[0].mu.Unlock()
		most = max(most, conns[0].mu.queued)
		return conns[0].mu.cut
	})
	if n := <-sent; most > maxQueued+1024 || n < 100 {
		t.Errorf("after %d requests %d bytes of answers waited", n, most)
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, mf := range all {
		if mf.GetName() == name && mf.GetType() == dto.MetricType_COUNTER {
			for _, m := range mf.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestComingAndGoing: nothing is left of clients that come and go, each in its way. With
// such heartbeats a machine that stands still for a moment has some cut as silent.
func TestComingAndGoing(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := newFixture(t, &Options{Heartbeat: 20 * time.Millisecond, Registerer: reg})
	f.put(time.Now(), 1, "__name__", "m")
	before := runtime.NumGoroutine()
	var wg sync.WaitGroup
	var failed struct {
		sync.Mutex
		errs []error
	}
	fail := func(err error) {
		failed.Lock()
		defer failed.Unlock()
		failed.errs = append(failed.errs, err)
	}
	for i := range 500 {
		wg.Go(func() {
			if i%5 == 4 { // half a handshake, or none
				c, err := net.Dial("tcp", f.addr)
				if err == nil {
					head := "GET " + PathLive + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
						"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
					_, err = io.WriteString(c, head[:min(i, len(head))])
					err = errors.Join(err, c.Close())
				}
				if err != nil {
					t.Error(err)
				}
				return
			}
			ws, _, err := (&websocket.Dialer{}).Dial("ws://"+f.addr+PathLive, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer ws.Close()
			if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"op":"subscribe","id":"a","query":"m","step":"100ms","backfill":"10s"}`)); err != nil {
				fail(err)
				return
			}
			switch i % 5 {
			case 1:
				_, _, err = ws.ReadMessage()
			case 2:
				err = ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience))
				for err == nil {
					_, _, err = ws.ReadMessage()
				}
				if websocket.IsCloseError(err, 1000) {
					err = nil
				}
			case 3:
				err = ws.NetConn().(*net.TCPConn).SetLinger(0) // a reset
			}
			if err != nil {
				fail(err)
			}
		})
		if i%50 == 49 {
			wg.Wait()
		}
	}
	until(t, "all have gone", func() bool { return len(f.all()) == 0 && f.hub.Stats().Subscribers == 0 })
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+64 }) // fasthttp's idle workers
	if cut := int(counter(t, reg, "strandline_live_cut_clients_total")); len(failed.errs) > cut {
		t.Errorf("%d were cut, and clients met %v", cut, failed.errs)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.count != 0 {
		t.Errorf("%d connections are counted", f.mu.count)
	}
}

func TestAppliedIsWaitedFor(t *testing.T) {
	reached := make(chan model.Applied, 1)
	f := newFixture(t, &Options{SyncTimeout: 50 * time.Millisecond, Sync: func(ctx context.Context, a model.Applied) error {
		if a[0].Index == 12 {
			reached <- a
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	c := f.dial(PathLive, nil)
	c.send(`{"op":"subscribe","id":"a","query":"m","applied":"3:12"}`)
	c.next(frame.Ack)
	if a := <-reached; a[0].Shard != 3 {
		t.Errorf("got %v", a)
	}
	c.send(`{"op":"subscribe","id":"b","query":"m","applied":"3:13"}`)
	if e := c.next(frame.Error); e.ErrorType != "timeout" || e.ID != "b" {
		t.Errorf("got %+v", e)
	}
}

func TestCompression(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		f := newFixture(t, &Options{Compression: allowed})
		for i := range 100 {
			f.put(time.Now().Add(-time.Second), 1, "__name__", "m", "i", fmt.Sprint("a label value that repeats ", i))
		}
		ws, res, err := (&websocket.Dialer{EnableCompression: true}).Dial("ws://"+f.addr+PathLive, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ws.Close() })
		if got := res.Header.Get("Sec-Websocket-Extensions") != ""; got != allowed {
			t.Errorf("allowed %v: got %v", allowed, res.Header)
		}
		c := &rawClient{t, ws}
		c.send(`{"op":"subscribe","id":"a","query":"m","step":"100ms"}`)
		n := 0
		for n < 100 {
			n += len(c.next(frame.Series).Series)
		}
		if d := c.next(frame.Data); len(d.V) != 100 {
			t.Errorf("got %+v", d)
		}
	}
}

// TestCompressionOffers: only what can be kept is agreed to; what an offer asks for beyond
// that declines it (RFC 7692, 5.1), and a later one may do.
func TestCompressionOffers(t *testing.T) {
	f := newFixture(t, &Options{Compression: true})
	for offers, agreed := range map[string]bool{
		"permessage-deflate": true,
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover": true,
		"permessage-deflate; client_max_window_bits":                                 true,
		`x-other; a=b, permessage-deflate; client_max_window_bits="12"`:              true,
		"permessage-deflate; server_max_window_bits=10":                              false,
		"permessage-deflate; server_max_window_bits=15":                              false,
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":          true,
		"permessage-deflate; client_max_window_bits=7":                               false,
		"permessage-deflate; client_max_window_bits; client_max_window_bits":         false,
		"permessage-deflate; server_no_context_takeover=1":                           false,
		"permessage-deflate; mystery":                                                false,
		"x-permessage-deflate":                                                       false,
		"permessage-deflate-2":                                                       false,
	} {
		res := f.get(PathLive, http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Extensions": {offers}})
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s: got %s", offers, res.Status)
		}
		if got := res.Header.Get("Sec-Websocket-Extensions") != ""; got != agreed {
			t.Errorf("%s: got %v, want %v", offers, got, agreed)
		}
	}
}

// TestFrameSizes: frames come whole where the length in their head takes another form.
func TestFrameSizes(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(PathLive, nil)
	overhead := 0
	for i, size := range []int{100, 125, 126, 65535, 65536} {
		c.send(fmt.Sprintf(`{"op":"subscribe","id":"%d","query":"m%d","mode":"samples"}`, i, i))
		c.next(frame.Ack)
		f.put(time.Now(), 1, "__name__", fmt.Sprint("m", i), "l", strings.Repeat("x", size-overhead))
		raw := c.raw()
		for !strings.HasPrefix(raw, `{"type":"series"`) {
			raw = c.raw()
		}
		if overhead == 0 {
			overhead = len(raw) - size
			continue
		}
		if len(raw) != size || strings.Count(raw, "x") != size-overhead {
			t.Errorf("%d bytes came, want %d", len(raw), size)
		}
		if d := c.next(frame.Data); len(d.V) != 1 {
			t.Errorf("got %+v", d)
		}
	}
}

// steady is a connection whose reader takes a little at a time, and lives.
type steady struct {
	net.Conn
	ws *websocket.Conn
}

// Read implements net.Conn.
func (s *steady) Read(p []byte) (int, error) {
	if s.ws != nil {
		time.Sleep(100 * time.Millisecond) // the pace
		if err := s.ws.WriteControl(websocket.PongMessage, nil, time.Now().Add(patience)); err != nil {
			return 0, err
		}
	}
	return s.Conn.Read(p[:min(len(p), 64<<10)])
}

// TestSlowButSteady: a client that goes on taking a large frame is not cut, however long
// that lasts in all.
func TestSlowButSteady(t *testing.T) {
	f := newFixture(t, &Options{WriteTimeout: time.Second, Heartbeat: 100 * time.Millisecond})
	conn := &steady{}
	d := websocket.Dialer{ReadBufferSize: 64 << 10, NetDial: func(network, addr string) (c net.Conn, err error) {
		if conn.Conn, err = net.Dial(network, addr); err == nil {
			err = conn.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		}
		return conn, err
	}}
	ws, _, err := d.Dial("ws://"+f.addr+PathLive, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	c := &rawClient{t, ws}
	c.send(`{"op":"subscribe","id":"a","query":"m","mode":"samples"}`)
	c.next(frame.Ack)
	conn.ws = ws
	const series, buckets = 500, 100
	at := time.Now().UnixMilli()
	b := &model.Batch{}
	h := &histogram.FloatHistogram{Count: buckets, PositiveSpans: []histogram.Span{{Length: buckets}}, PositiveBuckets: slices.Repeat([]float64{1}, buckets)}
	for i := range series {
		key := model.AppendKey(nil, labels.FromStrings("__name__", "m", "i", strconv.Itoa(i)))
		b.Series = append(b.Series, model.BatchSeries{Key: key, HFrom: i, HTo: i + 1})
		b.Hist = append(b.Hist, model.HistogramSample{T: at, FH: h})
	}
	if _, err := f.store.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < series; {
		got += len(c.next(frame.Data, frame.Series, frame.Heartbeat).V)
	}
}
