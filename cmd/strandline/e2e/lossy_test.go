package e2e

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// lossyProxy passes requests on and drops the connection instead of giving one answer in five. The first is always
// dropped: a short run must not pass for want of a fault.
type lossyProxy struct {
	*httptest.Server
	dropped, passed atomic.Int64
	refused         atomic.Int64 // 4xx answers of the server, dropped or not
}

func newLossyProxy(t *testing.T, target string, seed uint64) *lossyProxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &lossyProxy{}
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 0))
	inner := httputil.NewSingleHostReverseProxy(u)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		if rec.Code/100 == 4 {
			p.refused.Add(1)
		}
		mu.Lock()
		drop := rnd.IntN(5) == 0 || p.dropped.Load() == 0
		mu.Unlock()
		if drop {
			p.dropped.Add(1)
			panic(http.ErrAbortHandler) // closes the connection without an answer
		}
		p.passed.Add(1)
		for k, vs := range rec.Header() {
			w.Header()[k] = vs
		}
		w.WriteHeader(rec.Code)
		_, _ = io.Copy(w, rec.Body) // the sender may be gone: that is a lost answer too
	}))
	t.Cleanup(p.Close)
	return p
}

// TestLostAnswers is fault 16: a sender that loses 20 % of the answers and retries.
func TestLostAnswers(t *testing.T) {
	for how, serve := range servers() {
		t.Run(how, func(t *testing.T) {
			s := serve(t, t.TempDir())
			p := newLossyProxy(t, s.base, 1)
			l := newLedger()
			first := time.Now().Add(-time.Hour).UnixMilli()
			var writers sync.WaitGroup
			errs := make([]error, crashWriters)
			for w := range crashWriters {
				writers.Go(func() { errs[w] = retrying(t.Context(), p.URL, l, w, first, 100) })
			}
			writers.Wait()
			for _, err := range errs {
				if err != nil {
					t.Fatal(err)
				}
			}
			if p.dropped.Load() == 0 {
				t.Fatal("void: no answer was dropped")
			}
			if n := p.refused.Load(); n > 0 {
				t.Fatalf("%d needless 4xx answers", n)
			}
			if want := crashWriters * crashSeries * 100; l.acked() != want {
				t.Fatalf("%d acknowledged, want %d", l.acked(), want)
			}
			l.check(t, s.base, first, first+100)
			s.terminate(t)
		})
	}
}

// retrying sends n requests and repeats each until it is acknowledged.
func retrying(ctx context.Context, base string, l *ledger, writer int, first int64, n int) error {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for ms := first; ms < first+int64(n); ms++ {
		body, done := l.request(writer, crashSeries, ms)
		for status := 0; status/100 != 2; {
			if err := ctx.Err(); err != nil {
				return err
			}
			// An error here is a dropped answer: the point of the test.
			status, _, _ = post(ctx, client, base, v1, body)
		}
		done()
	}
	return nil
}
