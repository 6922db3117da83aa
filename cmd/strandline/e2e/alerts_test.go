package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// receiver takes what webhooks and rules tell.
type receiver struct {
	*httptest.Server
	mu struct {
		sync.Mutex
		deliveries []string // ids of webhooks
		starts     []string // startsAt of alerts, as an Alertmanager is told
	}
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		var alerts []struct{ StartsAt string }
		r.mu.Lock()
		defer r.mu.Unlock()
		if req.URL.Path == "/hook" {
			r.mu.deliveries = append(r.mu.deliveries, req.Header.Get("X-Strandline-Delivery"))
		} else if err := json.Unmarshal(body, &alerts); err != nil || len(alerts) == 0 {
			t.Errorf("an Alertmanager can't read %s: %v", body, err)
		} else {
			r.mu.starts = append(r.mu.starts, alerts[0].StartsAt)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) got() (deliveries, starts []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.mu.deliveries), slices.Clone(r.mu.starts)
}

// evaluator returns the node that evaluates and delivers; an error unless it is exactly one.
func (c *trio) evaluator(ctx context.Context, alive []int) (int, error) {
	at := -1
	for _, i := range alive {
		var s struct{ Delivers bool }
		if err := getJSON(ctx, c.nodes[i].base+"/api/v1/health/circuits", &s); err != nil {
			return 0, err
		}
		if s.Delivers && at >= 0 {
			return 0, fmt.Errorf("nodes %d and %d evaluate", at, i)
		}
		if s.Delivers {
			at = i
		}
	}
	if at < 0 {
		return 0, fmt.Errorf("no node evaluates")
	}
	return at, nil
}

// TestAlertsInACluster: one node evaluates rules and subscriptions; when it is killed
// another goes on, and nobody is told twice of what goes on firing.
func TestAlertsInACluster(t *testing.T) {
	r := newReceiver(t)
	file := filepath.Join(t.TempDir(), "rules.yml")
	text := "groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: beat\n    expr: time()\n  - alert: Always\n    expr: beat > 0\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newTrio(t, func(string) []string {
		return []string{"--rule-files", file, "--alertmanagers", r.URL, "--webhook-allow", "127.0.0.1"}
	})
	body := `{"query":"beat","comparison":"gt","threshold":0,"interval":"1s","notification_method":"webhook","url":"` + r.URL + `/hook"}`
	res, err := http.Post(c.nodes[0].base+"/api/v1/alerts/subscribe", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		t.Fatal(res.Status)
	}
	await(t, "the first alerts", func() error {
		if d, s := r.got(); len(d) == 0 || len(s) == 0 {
			return fmt.Errorf("told %v and %v", d, s)
		}
		return nil
	})
	victim := 0
	await(t, "one node that evaluates", func() (err error) {
		victim, err = c.evaluator(t.Context(), []int{0, 1, 2})
		return err
	})
	// What was told is remembered at the end of an iteration: let two more pass.
	awaitBeat(t, c.nodes[victim], time.Now().Add(2*time.Second))
	c.nodes[victim].signal(syscall.SIGKILL)
	c.nodes[victim].awaitExit(t)
	alive := slices.DeleteFunc([]int{0, 1, 2}, func(i int) bool { return i == victim })
	next := 0
	await(t, "another that evaluates", func() (err error) {
		next, err = c.evaluator(t.Context(), alive)
		return err
	})
	awaitBeat(t, c.nodes[next], time.Now().Add(5*time.Second))                            // beyond the third iteration, when all is restored
	await(t, "an evaluation of the subscription after the takeover", func() (err error) { // or after the next, when leaders are spread again
		if next, err = c.evaluator(t.Context(), alive); err != nil {
			return err
		}
		var subs struct {
			Subscriptions []struct {
				State          string
				LastEvaluation time.Time
			}
		}
		if err := getJSON(t.Context(), c.nodes[next].base+"/api/v1/alerts/subscribe", &subs); err != nil {
			return err
		}
		if len(subs.Subscriptions) != 1 || subs.Subscriptions[0].State != "firing" || subs.Subscriptions[0].LastEvaluation.IsZero() {
			return fmt.Errorf("got %+v", subs)
		}
		return nil
	})
	deliveries, starts := r.got()
	if len(slices.Compact(deliveries)) != 1 {
		t.Errorf("webhooks told %v", deliveries)
	}
	if len(slices.Compact(slices.Clone(starts))) != 1 || len(starts) > 2 {
		t.Errorf("an Alertmanager was told of alerts since %v", starts)
	}
}

// awaitBeat waits until a rule has written its time as later than t.
func awaitBeat(t *testing.T, s *strandline, after time.Time) {
	t.Helper()
	await(t, "an evaluation", func() error {
		var v []struct{ Value [2]json.RawMessage }
		if err := query(t.Context(), s.base, "query", url.Values{"query": {"max(beat)"}}, &v); err != nil {
			return err
		}
		var f float64
		if len(v) == 1 {
			var text string
			if err := json.Unmarshal(v[0].Value[1], &text); err != nil {
				return err
			}
			if _, err := fmt.Sscan(text, &f); err != nil {
				return err
			}
		}
		if f < float64(after.UnixNano())/1e9 {
			return fmt.Errorf("the last is at %f", f)
		}
		return nil
	})
}
