package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/strandline-db/strandline/server/live/frame"
)

// livePage follows a stream by EventSource, opens another where that gives up, and sends on what comes, in order.
const livePage = `<!doctype html><title>live</title><script>
let last = '', queue = [], sending = false
async function send(type, data) {
  queue.push({type, data})
  if (sending) return
  sending = true
  while (queue.length > 0) {
    const batch = queue
    queue = []
    await fetch('/came', {method: 'POST', body: JSON.stringify(batch)})
  }
  sending = false
}
function open() {
  const es = new EventSource('/stream' + (last && '?last_event_id=' + last))
  for (const type of ['ack', 'data', 'dropped', 'heartbeat'])
    es.addEventListener(type, e => { last = e.lastEventId; send(type, e.data) })
  es.addEventListener('error', e => {
    if (e.data !== undefined) send('error', e.data)
    else if (es.readyState === EventSource.CLOSED) setTimeout(open, 200)
  })
}
open()
</script>`

// browsed is what a page and its stream go through on the way to a server.
type browsed struct {
	base string // of the server
	mu   struct {
		sync.Mutex
		subs   map[string]*rawSteps // by id
		err    error
		cut    context.CancelFunc // of the stream under way
		refuse bool               // the next stream
		header int                // streams that were resumed by the browser itself,
		param  int                // and by the page
	}
}

// ServeHTTP implements http.Handler.
func (b *browsed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, livePage) // the browser may be gone
	case "/came":
		b.came(r)
	case "/stream":
		b.stream(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (b *browsed) came(r *http.Request) {
	var events []struct{ Type, Data string }
	err := json.NewDecoder(r.Body).Decode(&events)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		x, bad := frame.ParseFrame([]byte(e.Data))
		if bad == nil && b.mu.subs[x.ID] != nil {
			bad = b.mu.subs[x.ID].take(x)
		}
		err = errors.Join(err, bad)
	}
	b.mu.err = errors.Join(b.mu.err, err)
}

// stream passes the server's stream on until it is cut, which the browser sees as a connection that broke.
func (b *browsed) stream(w http.ResponseWriter, r *http.Request) {
	ctx, cut := context.WithCancel(r.Context())
	defer cut()
	id, param := r.Header.Get("Last-Event-ID"), r.URL.Query().Get("last_event_id")
	b.mu.Lock()
	b.mu.cut = cut
	refuse := b.mu.refuse
	b.mu.refuse = false
	switch {
	case id != "":
		b.mu.header++
	case param != "":
		b.mu.param++
	}
	b.mu.Unlock()
	if refuse {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.base+"/api/v1/live/sse?step=100ms&query=ledger&query=sum(rate(ledger[2s]))&"+r.URL.RawQuery, nil)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if id != "" {
		req.Header.Set("Last-Event-ID", id)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil { // the server is down
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	out := http.NewResponseController(w)
	for buf := make([]byte, 4096); ; {
		n, err := res.Body.Read(buf)
		_, _ = w.Write(buf[:n]) // it may be gone, which its context tells
		if err != nil || out.Flush() != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// awaitStep waits until the page has the step at a time.
func (b *browsed) awaitStep(t *testing.T, at time.Time) {
	t.Helper()
	await(t, "a step in the page", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.mu.err != nil {
			t.Fatal(b.mu.err)
		}
		for id, s := range b.mu.subs {
			if int64(s.last) < at.UnixMilli()-100 {
				return fmt.Errorf("query %s: the step at %v does not come after %d", id, at, s.last)
			}
		}
		return nil
	})
}

// browse starts a browser. It is many processes, which may write to its profile for a
// moment after the first of them has been killed.
func browse(t *testing.T, chromium, url string) {
	profile := t.TempDir()
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-breakpad", "--no-first-run", "--remote-debugging-port=0", "--user-data-dir="+profile, url)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	startCommand(t, cmd)
	t.Cleanup(func() {
		await(t, "the browser's profile to be gone", func() error {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what is left; it may be nothing
			return os.RemoveAll(profile)
		})
	})
}

// TestLiveBrowser: in a real browser an EventSource whose connection breaks again and again, in a kill of the server
// too, resumes by the Last-Event-ID that the browser sends; where it gives up, at a 503, the page resumes. No step is
// missing and none comes twice in a revision.
func TestLiveBrowser(t *testing.T) {
	chromium := need(t, "apt-get install chromium", func() (string, error) { return exec.LookPath("chromium") })
	addr, dir := freeAddr(t), t.TempDir()
	s := serveAt(t, addr, dir)
	b := &browsed{base: s.base}
	b.mu.subs = map[string]*rawSteps{"0": {came: map[[2]int64]bool{}}, "1": {came: map[[2]int64]bool{}}}
	w := &liveWriter{base: s.base, rnd: rand.New(rand.NewPCG(1, 0))}
	var writing sync.WaitGroup
	stop := make(chan struct{})
	writing.Go(func() { w.run(t.Context(), stop) })
	page := httptest.NewServer(b)
	t.Cleanup(page.Close) // once the browser is gone
	browse(t, chromium, page.URL)
	b.awaitStep(t, time.Now())
	for i := range 4 {
		w.correct(t.Context())
		b.mu.Lock()
		cut := b.mu.cut
		b.mu.refuse = i == 2
		b.mu.Unlock()
		if i == 3 {
			s.kill(t)
			s = serveAt(t, addr, dir)
		} else {
			cut()
		}
		b.awaitStep(t, time.Now().Add(time.Second))
	}
	close(stop)
	writing.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.header < 2 || b.mu.param < 1 {
		t.Errorf("the browser resumed %d times, the page %d", b.mu.header, b.mu.param)
	}
	t.Logf("%d steps and corrections came; the browser resumed %d times, the page %d", len(b.mu.subs["0"].came), b.mu.header, b.mu.param)
}
