package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/shard/model"
)

// fasthttp keeps two tickers of its own for the life of the process.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// TestGrafana replays the calls of testdata/grafana.txt.
func TestGrafana(t *testing.T) {
	f := newFixture(t, &api.Options{Version: api.BuildInfo{Version: "1.2.3"}})
	raw, err := os.ReadFile("testdata/grafana.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(raw)), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		sent, want, _ := strings.Cut(line, " | ")
		w := strings.Fields(sent)
		code, part, _ := strings.Cut(want, " ")
		c := call{method: w[0], path: strings.TrimPrefix(w[1], "/api/v1/")}
		if w[2] != "-" {
			c.form = w[2]
		}
		resp, body := f.ours(t, c.request(t))
		if strconv.Itoa(resp.StatusCode) != code || !bytes.Contains(body, []byte(part)) {
			t.Errorf("%s\n got %d %s", line, resp.StatusCode, body)
		}
		if bytes.Contains(body, []byte("features")) {
			t.Errorf("%s: features in %s", line, body)
		}
	}
}

// TestStorageFaults: each error of the storage gets its status on every endpoint
// that reads.
func TestStorageFaults(t *testing.T) {
	f := newFixture(t, nil)
	defer f.store.SetError(nil)
	for _, c := range []struct {
		err   error
		code  int
		kind  string
		retry string
	}{
		{&model.LimitError{What: "series", Limit: 3, Flag: "x"}, 422, "execution", ""},
		{model.ErrClosed, 503, "unavailable", ""},
		{model.ErrFailed, 503, "unavailable", ""},
		{model.ErrOverloaded, 503, "unavailable", "1"},
		{context.DeadlineExceeded, 503, "timeout", ""},
		{context.Canceled, 499, "canceled", ""},
		{&model.CorruptionError{Path: "p", Offset: 1, Err: errors.New("crc")}, 500, "internal", ""},
		{errors.New("odd"), 422, "execution", ""},
	} {
		f.store.SetError(c.err)
		for _, path := range []string{
			"query?query=up", "query_range?query=up&start=1&end=2&step=1", "labels", "label/job/values", "series?match[]=up", "query_exemplars?query=lat", "metadata",
		} {
			resp, body := f.ours(t, call{"GET", path, ""}.request(t))
			if m := parse(t, body); resp.StatusCode != c.code || m["errorType"] != c.kind || resp.Header.Get("Retry-After") != c.retry {
				t.Errorf("%v, %s: %d %s", c.err, path, resp.StatusCode, body)
			}
		}
	}
}

func TestResponseLimit(t *testing.T) {
	f := newFixture(t, &api.Options{MaxResponseBytes: 1024})
	resp, body := f.ours(t, call{"GET", "query_range?query=up&start=1000&end=1300&step=1", ""}.request(t))
	if resp.StatusCode != 422 || !bytes.Contains(body, []byte("limit of 1024 response bytes")) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestGzip(t *testing.T) {
	f := newFixture(t, &api.Options{GzipMinBytes: 100})
	c := call{"GET", "series?match[]=up", ""}
	_, plain := f.ours(t, c.request(t))
	req := c.request(t)
	req.Header.Set("Accept-Encoding", "gzip")
	resp, packed := f.ours(t, req)
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, plain) || resp.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("%v: %s, want %s", err, got, plain)
	}
}

func TestClosed(t *testing.T) {
	f := newFixture(t, nil)
	if err := f.api.Close(); err != nil {
		t.Fatal(err)
	}
	resp, body := f.ours(t, call{"GET", "query?query=up", ""}.request(t))
	if m := parse(t, body); resp.StatusCode != 503 || m["errorType"] != "unavailable" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// stuck is a storage whose SelectAll ends only with its context.
type stuck struct {
	*querytest.Store
	entered chan struct{}
	left    chan error
}

func (s *stuck) SelectAll(ctx context.Context, _ []*model.SelectRequest) ([]*model.Selection, error) {
	s.entered <- struct{}{}
	<-ctx.Done()
	s.left <- context.Cause(ctx)
	return nil, ctx.Err()
}

// TestClientLeaves: a query whose client closes the connection is ended, even
// with a pipelined request waiting unread.
func TestClientLeaves(t *testing.T) {
	for _, extra := range []string{"", "GET /api/v1/labels HTTP/1.1\r\nHost: x\r\n\r\n"} {
		s := &stuck{querytest.New(), make(chan struct{}, 1), make(chan error, 1)}
		e, err := query.New(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		a := api.New(s, e, nil)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &fasthttp.Server{MaxIdleWorkerDuration: 10 * time.Millisecond, Handler: func(rc *fasthttp.RequestCtx) { a.Handle(rc) }}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ln) }()
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /api/v1/query?query=up HTTP/1.1\r\nHost: x\r\n\r\n"+extra); err != nil {
			t.Fatal(err)
		}
		<-s.entered
		if n := len(e.Active()); n != 1 {
			t.Errorf("%d active queries", n)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-s.left; !errors.Is(err, context.Canceled) {
			t.Errorf("ended by %v", err)
		}
		if err := errors.Join(srv.Shutdown(), <-served, a.Close()); err != nil {
			t.Error(err)
		}
	}
}

// TestTimeoutAndKill: both end a stuck query, each with its own status.
func TestTimeoutAndKill(t *testing.T) {
	s := &stuck{querytest.New(), make(chan struct{}, 1), make(chan error, 1)}
	e, err := query.New(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := api.New(s, e, nil)
	run := func(uri string) int {
		var rc fasthttp.RequestCtx
		rc.Request.SetRequestURI(uri)
		a.Handle(&rc)
		return rc.Response.StatusCode()
	}
	if code := run("/api/v1/query?query=up&timeout=1ms"); code != http.StatusServiceUnavailable {
		t.Errorf("timeout: %d", code)
	}
	<-s.entered
	<-s.left
	done := make(chan int)
	go func() { done <- run("/api/v1/query?query=up") }()
	<-s.entered
	if !e.Kill(e.Active()[0].ID) || e.Kill(1<<40) {
		t.Error("kill")
	}
	if code := <-done; code != 499 {
		t.Errorf("killed: %d", code)
	}
	if err := <-s.left; !errors.Is(err, query.ErrKilled) {
		t.Errorf("ended by %v", err)
	}
}

// TestStalenessHeader: an answer says how old it may be, unless nobody knows.
func TestStalenessHeader(t *testing.T) {
	for _, c := range []struct {
		age, after time.Duration // what was read was as old after all
		want       string
	}{
		{1500 * time.Millisecond, 1500 * time.Millisecond, "1.500"}, {0, 0, "0.000"}, {-1, -1, ""}, {time.Second, 2 * time.Second, "2.000"}, {time.Second, -1, ""},
	} {
		f := newFixture(t, &api.Options{Consistency: "stale", Sync: func(ctx context.Context, _ api.Freshness) (context.Context, time.Duration, error) {
			return ctx, c.age, nil
		}, Age: func(context.Context) time.Duration { return c.after }})
		res, err := f.client.Get("http://x/api/v1/query?query=1&partial=true")
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res.Status, err)
		}
		if got := res.Header.Get("X-Strandline-Staleness"); got != c.want {
			t.Errorf("an age of %v, and then %v, is told as %q", c.age, c.after, got)
		}
	}
}

// TestWhatIsSynced: a read of metadata waits for nothing else.
func TestWhatIsSynced(t *testing.T) {
	for path, want := range map[string]bool{"metadata?partial=true": true, "labels?partial=true": false, "query?query=1&partial=true": false} {
		var got api.Freshness
		f := newFixture(t, &api.Options{Sync: func(ctx context.Context, w api.Freshness) (context.Context, time.Duration, error) {
			got = w
			return ctx, 0, nil
		}})
		res, err := f.client.Get("http://x/api/v1/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Fatal(res.Status, err)
		}
		if got.Metadata != want || !got.Partial {
			t.Errorf("%s: %+v", path, got)
		}
	}
}
