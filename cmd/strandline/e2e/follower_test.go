package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fasthttp/websocket"

	"github.com/strandline-db/strandline/server/live/frame"
)

// liveConn is a WebSocket to one node.
type liveConn struct {
	t  *testing.T
	ws *websocket.Conn
}

func (s *strandline) live(t *testing.T) *liveConn {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.base, "http")+"/api/v1/live", nil)
	if err != nil {
		t.Fatal(err, res)
	}
	t.Cleanup(func() { _ = ws.Close() })
	return &liveConn{t, ws}
}

func (c *liveConn) send(r frame.Request) {
	c.t.Helper()
	if err := c.ws.WriteJSON(&r); err != nil {
		c.t.Fatal(err)
	}
}

// answer returns the next ack or error, and whose it is.
func (c *liveConn) answer() string {
	c.t.Helper()
	for {
		if err := c.ws.SetReadDeadline(time.Now().Add(patience)); err != nil {
			c.t.Fatal(err)
		}
		_, msg, err := c.ws.ReadMessage()
		if err != nil {
			c.t.Fatal(err)
		}
		f, err := frame.ParseFrame(msg)
		if err != nil {
			c.t.Fatalf("%s: %v", msg, err)
		}
		if f.Type == frame.Ack || f.Type == frame.Error {
			return strings.TrimSpace(f.Type + " " + f.Op + " " + f.ID + " " + f.ErrorType)
		}
	}
}

// later is a token of writes that there will never be.
func later(t *testing.T, token string) string {
	t.Helper()
	var parts []string
	for part := range strings.SplitSeq(token, ",") {
		shard, index, _ := strings.Cut(part, ":")
		i, err := strconv.ParseUint(index, 10, 64)
		if err != nil {
			t.Fatal(token, err)
		}
		parts = append(parts, fmt.Sprintf("%s:%d", shard, i+1_000_000_000))
	}
	return strings.Join(parts, ",")
}

// TestLiveFollowsAWrite: a subscription with the token of a write begins, at another
// node, once that has the write: a stale read there then sees it.
func TestLiveFollowsAWrite(t *testing.T) {
	c, l := newTrio(t, nil), newLedger()
	now := time.Now().UnixMilli()
	write := func(i int) (token string) {
		t.Helper()
		body, done := l.request(0, 1, now+int64(i))
		token = writeFor(t, c.nodes[i%3].base, body)
		done()
		return token
	}
	conns := []*liveConn{c.nodes[0].live(t), c.nodes[1].live(t), c.nodes[2].live(t)}
	const all = `{__name__!=""}`
	for i := range 30 {
		token := write(i)
		node := (i + 1) % 3
		sub := frame.Sub{ID: strconv.Itoa(i), Query: "count(" + all + ")", Applied: token}
		r := frame.Request{Op: frame.OpSubscribe, Sub: sub}
		if i%2 == 1 {
			r = frame.Request{Op: frame.OpSet, Subs: []frame.Sub{sub}}
		}
		conns[node].send(r)
		for want := "ack " + r.Op + " " + sub.ID; ; {
			got := conns[node].answer()
			if got == want {
				break
			}
			if !strings.HasPrefix(got, "ack unsubscribe ") {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		var answer struct {
			Result []struct{ Value [2]any }
		}
		path := fmt.Sprintf("/api/v1/query?consistency=stale&query=count_over_time(%s[1m])&time=%.3f", "{__name__!=\"\"}", float64(now+int64(i))/1000)
		if err := getJSON(t.Context(), c.nodes[node].base+path, &answer); err != nil {
			t.Fatal(err)
		}
		if len(answer.Result) != 1 || answer.Result[0].Value[1] != fmt.Sprint(i+1) {
			t.Fatalf("write %d: %+v", i, answer)
		}
	}
	// A write that never comes holds up nothing else, and its waiting ends.
	conn := conns[0]
	conn.send(frame.Request{Op: frame.OpSet, Subs: []frame.Sub{{ID: "never", Query: "up", Applied: later(t, write(30))}, {ID: "now", Query: "up"}}})
	var got []string
	for len(got) == 0 || !strings.Contains(got[len(got)-1], "never") {
		if a := conn.answer(); !strings.HasPrefix(a, "ack unsubscribe ") {
			got = append(got, a)
		}
	}
	if len(got) != 2 || got[0] != "ack set now" || got[1] != "error set never timeout" && got[1] != "error set never unavailable" {
		t.Errorf("got %q", got)
	}
}

// told is what a node says of the rules.
type told struct {
	Status   string
	Warnings []string
	Data     struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Name, Type, State, Health string
				LastEvaluation            time.Time
			}
		}
		Alerts []struct {
			State, Value string
			Labels       map[string]string
			ActiveAt     time.Time
		}
	}
}

func (s *strandline) told(t *testing.T, path string) (int, told) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v told
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %s: %v", path, body, err)
	}
	return res.StatusCode, v
}

// TestFollowersTellOfRules: every node answers for rules and alerts as the one that
// evaluates them; a node that can't ask says so.
func TestFollowersTellOfRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rules.yml")
	text := "groups:\n- name: g\n  interval: 1s\n  rules:\n  - record: one\n    expr: vector(1)\n  - alert: Always\n    expr: vector(7)\n    labels: {severity: page}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := newTrio(t, func(string) []string { return []string{"--rule-files", file} })
	leader := 0
	await(t, "a node that evaluates", func() (err error) {
		leader, err = c.evaluator(t.Context(), []int{0, 1, 2})
		return err
	})
	await(t, "the same alert at all nodes", func() error {
		_, want := c.nodes[leader].told(t, "/api/v1/alerts")
		if a := want.Data.Alerts; len(a) != 1 || a[0].State != "firing" || a[0].Value != "7e+00" || a[0].Labels["severity"] != "page" {
			return fmt.Errorf("n%d tells %+v", leader+1, want)
		}
		for i := range c.nodes {
			if _, got := c.nodes[i].told(t, "/api/v1/alerts"); !reflect.DeepEqual(got, want) {
				return fmt.Errorf("n%d tells %+v", i+1, got)
			}
		}
		return nil
	})
	for i := range c.nodes {
		await(t, "the alerting rule alone", func() error {
			_, v := c.nodes[i].told(t, "/api/v1/rules?type=alert")
			if len(v.Warnings) > 0 || len(v.Data.Groups) != 1 || len(v.Data.Groups[0].Rules) != 1 {
				return fmt.Errorf("n%d tells %+v", i+1, v)
			}
			if r := v.Data.Groups[0].Rules[0]; r.Name != "Always" || r.Type != "alerting" || r.State != "firing" || r.Health != "ok" || r.LastEvaluation.IsZero() {
				return fmt.Errorf("n%d tells %+v", i+1, r)
			}
			return nil
		})
		if code, _ := c.nodes[i].told(t, "/api/v1/rules?type=none"); code != 400 {
			t.Errorf("n%d answers %d to a bad request", i+1, code)
		}
	}
	last := c.nodes[(leader+1)%3]
	for _, i := range []int{leader, (leader + 2) % 3} {
		c.nodes[i].signal(syscall.SIGKILL)
		c.nodes[i].awaitExit(t)
	}
	await(t, "a warning of the last node", func() error {
		code, v := last.told(t, "/api/v1/alerts")
		if code != 200 || v.Status != "success" || len(v.Warnings) == 0 {
			return fmt.Errorf("%d %+v", code, v)
		}
		return nil
	})
}
