package alertmanager_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/server/alertmanager"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is an Alertmanager that checks what it gets by Alertmanager's own model.
type fake struct {
	*httptest.Server
	t      *testing.T
	status func(n int) int // of the nth request, from 1
	got    chan models.PostableAlerts
	mu     struct {
		sync.Mutex
		n    int
		user string
	}
}

func newFake(t *testing.T, status func(int) int) *fake {
	f := &fake{t: t, status: status, got: make(chan models.PostableAlerts, 100)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/am/api/v2/alerts" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		f.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	var list models.PostableAlerts
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		f.t.Error(err)
	}
	for _, a := range list {
		if err := a.Validate(nil); err != nil {
			f.t.Errorf("%v: %v", a, err)
		}
	}
	user, password, _ := r.BasicAuth()
	f.mu.Lock()
	f.mu.n++
	n := f.mu.n
	f.mu.user = user + ":" + password
	f.mu.Unlock()
	w.WriteHeader(f.status(n))
	f.got <- list
}

func (f *fake) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.n
}

func always(code int) func(int) int { return func(int) int { return code } }

func alerts(n int) []alertmanager.Alert {
	var list []alertmanager.Alert
	for i := range n {
		list = append(list, alertmanager.Alert{Labels: labels.FromStrings("alertname", "A", "i", fmt.Sprint(i)), Annotations: labels.FromStrings("summary", "<s> & \"q\""),
			StartsAt: time.Unix(1_700_000_000, 5e8).UTC(), EndsAt: time.Unix(1_700_000_240, 0).UTC(), GeneratorURL: "http://here/graph?g0.expr=up&g0.tab=1"})
	}
	return list
}

func open(t *testing.T, o *alertmanager.Options) *alertmanager.Sender {
	t.Helper()
	s, err := alertmanager.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSendsWhatAlertmanagerTakes(t *testing.T) {
	a, b := newFake(t, always(200)), newFake(t, always(202))
	password := filepath.Join(t.TempDir(), "p")
	if err := os.WriteFile(password, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, &alertmanager.Options{URLs: []string{a.URL + "/am", b.URL + "/am/"}, BatchSize: 3, User: "me", PasswordFile: password})
	s.Send(alerts(7))
	for _, f := range []*fake{a, b} {
		var sizes []int
		for range 3 {
			list := <-f.got
			sizes = append(sizes, len(list))
			x := list[0]
			if x.Labels["alertname"] != "A" || x.Annotations["summary"] != "<s> & \"q\"" || x.StartsAt.String() != "2023-11-14T22:13:20.500Z" ||
				x.EndsAt.String() != "2023-11-14T22:17:20.000Z" || x.GeneratorURL.String() != "http://here/graph?g0.expr=up&g0.tab=1" {
				t.Errorf("got %+v", x)
			}
		}
		if !slices.Equal(sizes, []int{3, 3, 1}) {
			t.Errorf("batches of %v", sizes)
		}
		f.mu.Lock()
		if f.mu.user != "me:secret" {
			t.Errorf("credentials %q", f.mu.user)
		}
		f.mu.Unlock()
	}
}

// waiting is a clock that tells when somebody waits on it, and lets no time pass by itself.
type waiting struct {
	*clock.Manual
	pauses chan time.Duration
}

func (w *waiting) After(d time.Duration) (<-chan time.Time, func()) {
	ch, release := w.Manual.After(d)
	w.pauses <- d
	return ch, release
}

func TestTriesAgainWhereItHelps(t *testing.T) {
	for _, c := range []struct {
		status   func(int) int
		pauses   []time.Duration
		requests int
	}{
		{func(n int) int { return map[bool]int{true: 503, false: 200}[n < 3] }, []time.Duration{1e9, 2e9}, 3},
		{always(500), []time.Duration{1e9, 2e9}, 3},
		{always(400), nil, 1},
		{always(302), nil, 1},
	} {
		f := newFake(t, c.status)
		w := &waiting{clock.NewManual(time.Unix(0, 0)), make(chan time.Duration, 1)}
		reg := prometheus.NewRegistry()
		s := open(t, &alertmanager.Options{URLs: []string{f.URL + "/am"}, Clock: w, Registerer: reg})
		s.Send(alerts(2))
		for i := range c.requests {
			if n := len(<-f.got); n != 2 {
				t.Fatalf("%d alerts", n)
			}
			if i < len(c.pauses) {
				if p := <-w.pauses; p != c.pauses[i] {
					t.Errorf("pause %v, want %v", p, c.pauses[i])
				}
				w.Advance(c.pauses[i])
			}
		}
		s.Send(nil) // nothing more is sent
		s.Close()
		if f.requests() != c.requests {
			t.Errorf("%d requests, want %d", f.requests(), c.requests)
		}
	}
}

func TestFullQueueDropsTheOldest(t *testing.T) {
	block := make(chan struct{})
	began := make(chan struct{}, 2)
	f := newFake(t, func(int) int { began <- struct{}{}; <-block; return 200 })
	reg := prometheus.NewRegistry()
	s := open(t, &alertmanager.Options{URLs: []string{f.URL + "/am"}, QueueLength: 10, BatchSize: 100, Registerer: reg})
	s.Send(alerts(1))
	<-began // the first batch is on its way
	s.Send(alerts(25))
	close(block)
	<-f.got
	list := <-f.got
	if len(list) != 10 || list[0].Labels["i"] != "15" {
		t.Fatalf("got %d, from %v", len(list), list[0].Labels)
	}
	if n := counter(t, reg, "strandline_alertmanager_dropped_total"); n != 15 {
		t.Errorf("%v dropped", n)
	}
}

func counter(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(f *dto.MetricFamily) bool { return f.GetName() == name })
	if i < 0 {
		t.Fatalf("no %s", name)
	}
	return all[i].GetMetric()[0].GetCounter().GetValue()
}

func TestCloseEndsARequest(t *testing.T) {
	began := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		began <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(srv.Close)
	s := open(t, &alertmanager.Options{URLs: []string{srv.URL}})
	s.Send(alerts(1))
	<-began
	s.Close()
	s.Close()
}

func TestRefusesURLs(t *testing.T) {
	for _, u := range []string{"ftp://a", "a:9093", "http://u:topsecret@a", "http://a/?x=y", "http://a/#x", ""} {
		_, err := alertmanager.New(&alertmanager.Options{URLs: []string{u}})
		if !errors.Is(err, alertmanager.ErrBadOptions) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%q: got %v", u, err)
		}
	}
}
