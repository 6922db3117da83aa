package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/client"
	"github.com/strandline-db/strandline/server/live/frame"
)

// churnQueries is how many distinct queries the clients of TestLiveChurn follow in steps;
// in mode samples there is one more.
const churnQueries = 20

// TestLiveChurn lets many clients come and go, a few at a time, in all of the ways. Nothing of them is left; for
// goroutines that are not of live packages, which are given up only after a while, this is looked at in a soak.
func TestLiveChurn(t *testing.T) {
	s, l := serve(t, t.TempDir()), newLedger()
	fill(t, s.base, l, time.Now().UnixMilli(), 1)
	before, err := s.left(t.Context())
	if err != nil || before.live == 0 || before.all == 0 || before.files == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	c := &churn{ctx: t.Context(), base: s.base, addr: strings.TrimPrefix(s.base, "http://")}
	ways := c.ways()
	queue := make(chan int)
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for i := range queue {
				if err := ways[i%len(ways)](i); err != nil {
					t.Errorf("client %d, way %d: %v", i, i%len(ways), err)
				}
			}
		})
	}
	begin, n := time.Now(), rounds(600, 10_000)
	for i := range n {
		queue <- i
	}
	amid, err := s.left(t.Context())
	if err != nil || amid.queries == 0 || amid.feeds == 0 {
		t.Errorf("void: among them %+v, %v", amid, err)
	}
	close(queue)
	clients.Wait()
	took := time.Since(begin)
	http.DefaultClient.CloseIdleConnections()
	var after left
	await(t, "nothing to be left", func() (err error) {
		after, err = s.left(t.Context())
		if err == nil && (after.live > before.live || after.files > before.files || after.sums != before.sums || *soak && after.all > before.all) {
			err = fmt.Errorf("%+v before, %+v now", before, after)
		}
		return err
	})
	t.Logf("%d clients came and went in %d ways within %v: before them %+v, among the last %+v, then %+v", n, len(ways), took.Round(time.Millisecond), before, amid, after)
	s.terminate(t)
}

// churn is where clients come and go.
type churn struct {
	ctx        context.Context
	base, addr string
}

// ways are how the ith client does so.
func (c *churn) ways() []func(i int) error {
	return []func(i int) error{
		c.goClient,
		c.socket(c.goodbye),
		c.socket(func(ws *websocket.Conn, i int) error { return errors.Join(c.change(ws, i, true), c.goodbye(ws, i)) }),
		c.socket(func(*websocket.Conn, int) error { return nil }), // the connection ends without a goodbye
		c.socket(c.reset),
		c.socket(func(ws *websocket.Conn, i int) error { return errors.Join(c.change(ws, i, false), c.reset(ws, i)) }),
		c.socket(func(ws *websocket.Conn, i int) error { return errors.Join(c.change(ws, i, true), c.reset(ws, i)) }),
		func(i int) error { return c.events(i, true, false) },
		func(i int) error { return c.events(i, true, true) },
		func(i int) error { return c.events(i, false, true) },
	}
}

func churnQuery(i int) string {
	switch n := i % churnQueries; n % 3 {
	case 0:
		return fmt.Sprintf("vector(%d)", n)
	case 1:
		return fmt.Sprintf(`ledger{n="%d"}`, n)
	default:
		return fmt.Sprintf(`sum(rate(ledger{n="%d"}[5s]))`, n)
	}
}

// goClient subscribes, takes a step and closes.
func (c *churn) goClient(i int) error {
	cl, err := client.New([]string{c.base}, nil)
	if err != nil {
		return err
	}
	defer cl.Close()
	sub, err := cl.Subscribe(client.Query{Expr: churnQuery(i), Step: liveStep, Backfill: time.Second})
	if err != nil {
		return err
	}
	u, err := sub.Next(c.ctx)
	return errors.Join(err, u.Err)
}

// socket subscribes and leaves as it is told; a goodbye may come before the subscription has begun.
func (c *churn) socket(leave func(ws *websocket.Conn, i int) error) func(i int) error {
	return func(i int) (err error) {
		ws, _, err := websocket.DefaultDialer.DialContext(c.ctx, "ws://"+c.addr+"/api/v1/live", nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ws.Close()) }()
		if err := ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		sub := frame.Sub{ID: "a", Query: churnQuery(i), Step: frame.Duration(liveStep), Backfill: frame.Duration(time.Second)}
		if err := ws.WriteJSON(&frame.Request{Op: frame.OpSubscribe, Sub: sub}); err != nil {
			return err
		}
		return leave(ws, i)
	}
}

func (c *churn) goodbye(ws *websocket.Conn, _ int) error {
	err := ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(patience))
	for err == nil {
		_, _, err = ws.ReadMessage()
	}
	if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		return nil
	}
	return err
}

func (c *churn) reset(ws *websocket.Conn, _ int) error {
	return ws.NetConn().(*net.TCPConn).SetLinger(0)
}

// change sets other subscriptions, takes one back and begins it again, and waits for the answer to that if it is told to.
func (c *churn) change(ws *websocket.Conn, i int, wait bool) error {
	samples := frame.Sub{ID: "samples", Query: "ledger", Mode: frame.ModeSamples}
	other := frame.Sub{ID: "b", Query: churnQuery(i + 1), Step: frame.Duration(liveStep)}
	last := frame.Sub{ID: "last", Query: churnQuery(i + 2), Step: frame.Duration(liveStep)}
	for _, r := range []frame.Request{
		{Op: frame.OpSet, Subs: []frame.Sub{samples, other}},
		{Op: frame.OpUnsubscribe, Sub: frame.Sub{ID: "samples"}},
		{Op: frame.OpSet, Subs: []frame.Sub{other, last}},
		{Op: frame.OpSubscribe, Sub: samples},
		{Op: frame.OpUnsubscribe, Sub: frame.Sub{ID: "last"}},
	} {
		if err := ws.WriteJSON(&r); err != nil {
			return err
		}
	}
	for wait {
		_, msg, err := ws.ReadMessage()
		if err != nil {
			return err
		}
		f, err := frame.ParseFrame(msg)
		switch {
		case err != nil:
			return err
		case f.Type == frame.Error:
			return fmt.Errorf("%w: %s", errLive, msg)
		case f.Type == frame.Ack && f.Op == frame.OpUnsubscribe && f.ID == "last":
			return nil
		}
	}
	return nil
}

// events follows a stream of server-sent events, to the first if it is told to wait, and ends the connection below it.
func (c *churn) events(i int, wait, reset bool) (err error) {
	conn, err := net.Dial("tcp", c.addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	params := url.Values{"query": {churnQuery(i), churnQuery(i + 1), "ledger"}, "mode": {"", "", frame.ModeSamples}, "step": {liveStep.String()}}
	if _, err := fmt.Fprintf(conn, "GET /api/v1/live/sse?%s HTTP/1.1\r\nHost: %s\r\n\r\n", params.Encode(), c.addr); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for lines := bufio.NewScanner(conn); wait && lines.Scan(); {
		wait = !strings.HasPrefix(lines.Text(), "event: ack")
	}
	if wait {
		return fmt.Errorf("%w: the stream ended before an answer", errLive)
	}
	if reset {
		return conn.(*net.TCPConn).SetLinger(0)
	}
	return nil
}

// left is what a server has of its live clients.
type left struct {
	all, live int // goroutines, and those in the live packages
	files     int // descriptors
	sums
}

// sums are gauges of its metrics.
type sums struct{ conns, subs, queries, feeds int }

func (s *strandline) left(ctx context.Context) (l left, err error) {
	text, err := get(ctx, s.base+"/debug/pprof/goroutine?debug=1")
	if err != nil {
		return l, err
	}
	for stack := range strings.SplitSeq(text, "\n\n") {
		head, _, _ := strings.Cut(stack, " @ ")
		if n, err := strconv.Atoi(head[strings.LastIndexByte(head, '\n')+1:]); err == nil {
			if l.all += n; strings.Contains(stack, "/server/live.") || strings.Contains(stack, "/query/live.") {
				l.live += n
			}
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		return l, err
	}
	l.files = len(files)
	if text, err = get(ctx, s.base+"/metrics"); err != nil {
		return l, err
	}
	gauges := map[string]*int{"strandline_live_connections": &l.conns, "strandline_live_client_subscriptions": &l.subs,
		"strandline_live_queries": &l.queries, "strandline_feeds": &l.feeds}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, _, _ = strings.Cut(name, "{")
		if into := gauges[name]; into != nil {
			n, err := strconv.Atoi(value)
			if err != nil {
				return l, err
			}
			*into += n
		}
	}
	return l, nil
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return string(text), err
}
