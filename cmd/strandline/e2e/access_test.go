package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fasthttp/websocket"
)

// guarded is a server with a token for each role, and what it was asked so far.
type guarded struct {
	*strandline
	t       *testing.T
	audit   string
	denials int
	bodies  strings.Builder // of all answers
}

// secret is the token of a role; no log and no answer may hold it.
func secret(role string) string { return "s3cret-" + role }

func newGuarded(t *testing.T, args ...string) *guarded {
	t.Helper()
	g := &guarded{t: t, audit: filepath.Join(t.TempDir(), "audit.log")}
	text := "tokens:\n"
	for _, role := range []string{"read", "write", "admin"} {
		sum := sha256.Sum256([]byte(secret(role)))
		text += fmt.Sprintf("- {name: %s, sha256: %s, role: %s}\n", role, hex.EncodeToString(sum[:]), role)
	}
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g.strandline = serve(t, t.TempDir(), append([]string{"--config", file, "--audit-log", g.audit, "--log-level", "debug"}, args...)...)
	return g
}

// ask returns the status of a request as a role, from a page if origin says so.
func (g *guarded) ask(method, path, role, origin, body string) int {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, g.base+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if role != "" {
		req.Header.Set("Authorization", "Bearer "+secret(role))
	}
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		g.t.Fatal(err)
	}
	g.bodies.Write(text)
	if res.StatusCode == 401 || res.StatusCode == 403 {
		g.denials++
	}
	return res.StatusCode
}

// TestAccess is fault 23: every route against every role, pages from elsewhere, and
// webhooks to where they must not go. Nothing is let in, all denials are in the log, and
// no secret is in a log or an answer.
func TestAccess(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(secret("alertmanager")), 0o600); err != nil {
		t.Fatal(err)
	}
	g := newGuarded(t, "--webhook-allow", "127.0.0.2", "--alertmanagers", "http://127.0.0.2:1", "--alertmanager-user", "strandline", "--alertmanager-password-file", password)
	g.roles(t)
	g.pages(t)
	g.webhooks(t)
	log, err := os.ReadFile(g.audit)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(log), `"msg":"denied"`); got != g.denials {
		t.Errorf("%d denials are in the log, want %d", got, g.denials)
	}
	all, err := os.ReadFile(g.log)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"audit log": string(log), "log": string(all), "answers": g.bodies.String()} {
		for _, s := range []string{"s3cret", "hook-path", "a webhook's secret"} {
			if strings.Contains(text, s) {
				t.Errorf("%q is in the %s", s, name)
			}
		}
	}
}

func (g *guarded) roles(t *testing.T) {
	for _, c := range []struct {
		route  string
		let    string // roles
		others int    // of those that a role does not let in
	}{
		{"GET /-/healthy", " none read write admin", 0},
		{"GET /metrics", " read admin", 403},
		{"POST /api/v1/write", " write admin", 403},
		{"GET /api/v1/query?query=1", " read admin", 403},
		{"GET /api/v1/query_range?query=1&start=0&end=1&step=1", " read admin", 403},
		{"GET /api/v1/series?match[]=m", " read admin", 403},
		{"GET /api/v1/label/__name__/values", " read admin", 403},
		{"GET /api/v1/metadata", " read admin", 403},
		{"GET /api/v1/query_exemplars?query=m&start=0&end=1", " read admin", 403},
		{"GET /api/v1/format_query?query=m", " read admin", 403},
		{"GET /api/v1/parse_query?query=m", " read admin", 403},
		{"GET /api/v1/alertmanagers", " read admin", 403},
		{"GET /api/v1/cluster/status", " read admin", 403},
		{"GET /api/v1/status/buildinfo", " read admin", 403},
		{"GET /api/v1/status/config", " read admin", 403},
		{"GET /api/v1/status/flags", " read admin", 403},
		{"GET /api/v1/status/runtimeinfo", " read admin", 403},
		{"GET /api/v1/status/tsdb", " read admin", 403},
		{"GET /-/ready", " none read write admin", 0},
		{"GET /api/v1/labels", " read admin", 403},
		{"GET /api/v1/rules", " read admin", 403},
		{"GET /api/v1/alerts", " read admin", 403},
		{"GET /api/v1/slo", " read admin", 403},
		{"GET /api/v1/metrics/realtime?metrics=m", " read admin", 403},
		{"GET /api/v1/metrics/historical?metric=m", " read admin", 403},
		{"GET /api/v1/live", " read admin", 403},
		{"GET /api/v1/live/sse", " read admin", 403},
		{"GET /api/v1/metrics/stream", " read admin", 403},
		{"GET /api/v1/health/circuits", " read admin", 403},
		{"GET /api/v1/alerts/subscribe", " read admin", 403},
		{"POST /api/v1/alerts/subscribe", " admin", 403},
		{"DELETE /api/v1/alerts/subscribe/x", " admin", 403},
		{"GET /api/v1/admin/cluster/hash", " admin", 403},
		{"GET /api/v1/admin/cluster/plan", " admin", 403},
		{"GET /debug/pprof/", " admin", 403},
		{"GET /debug/pprof/cmdline", " admin", 403},
		{"GET /nothing", " admin", 403},
		{"GET /api/v1/nothing", " read admin", 403},
	} {
		g.asEach(t, c.route, c.let, c.others)
	}
	for _, path := range adminPosts {
		g.asEach(t, "POST /api/v1/"+path, " admin", 403)
	}
}

// asEach asks as each role.
func (g *guarded) asEach(t *testing.T, route, let string, others int) {
	t.Helper()
	method, path, _ := strings.Cut(route, " ")
	for _, role := range []string{"none", "read", "write", "admin", "other"} {
		as := role
		if role == "none" {
			as = ""
		}
		got := g.ask(method, path, as, "", "")
		want := others
		if role == "none" || role == "other" {
			want = 401
		}
		if others == 0 || strings.Contains(let, " "+role) {
			if got == 401 || got == 403 {
				t.Errorf("%s as %s: got %d", route, role, got)
			}
		} else if got != want {
			t.Errorf("%s as %s: got %d, want %d", route, role, got, want)
		}
	}
}

// pages are those of other sites, in the browser of somebody who may do all.
func (g *guarded) pages(t *testing.T) {
	for _, origin := range []string{"https://evil.example", "null", g.base + ".evil.example", "http://127.0.0.1"} {
		for _, path := range []string{"/api/v1/live", "/api/v1/metrics/stream"} {
			ws, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(g.base, "http")+path,
				http.Header{"Origin": {origin}, "Authorization": {"Bearer " + secret("admin")}})
			if err == nil {
				_ = ws.Close()
				t.Errorf("a page from %s opened %s", origin, path)
			}
			if res == nil || res.StatusCode != 403 {
				t.Fatalf("%s from %s: %v %v", path, origin, res, err)
			}
			g.denials++
		}
		for _, route := range []string{"GET /api/v1/live/sse?query=up", "POST /api/v1/write", "POST /api/v1/admin/backup", "POST /api/v1/alerts/subscribe", "DELETE /api/v1/alerts/subscribe/x"} {
			method, path, _ := strings.Cut(route, " ")
			if got := g.ask(method, path, "admin", origin, ""); got != 403 {
				t.Errorf("%s from %s: got %d", route, origin, got)
			}
		}
	}
}

// webhooks go to a private address outright, by a name, and by a redirect.
func (g *guarded) webhooks(t *testing.T) {
	var reached, redirected atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer inside.Close()
	at, err := url.Parse(inside.URL)
	if err != nil {
		t.Fatal(err)
	}
	allowed := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		redirected.Add(1)
		http.Redirect(w, r, inside.URL+"/hook-path", http.StatusTemporaryRedirect)
	}))
	_ = allowed.Listener.Close() // it has one already
	if allowed.Listener, err = net.Listen("tcp", "127.0.0.2:0"); err != nil {
		t.Fatalf("a second loopback address, as Linux has: %v", err)
	}
	allowed.Start()
	defer allowed.Close()
	subscribe := func(to string) int {
		t.Helper()
		body, err := json.Marshal(map[string]any{"query": "vector(1)", "comparison": "gt", "threshold": 0, "interval": "1s",
			"notification_method": "webhook", "url": to, "secret": "a webhook's secret"})
		if err != nil {
			t.Fatal(err)
		}
		return g.ask(http.MethodPost, "/api/v1/alerts/subscribe", "admin", "", string(body))
	}
	for _, to := range []string{inside.URL + "/hook-path", "http://169.254.169.254/hook-path", "http://[::1]:" + at.Port() + "/hook-path", "http://10.0.0.1/hook-path"} {
		if got := subscribe(to); got != 400 {
			t.Errorf("to %s: got %d", to, got)
		}
		g.denials++ // answered 400, for it is the request that is bad
	}
	if got := subscribe("http://localhost:" + at.Port() + "/hook-path"); got != 201 {
		t.Fatalf("to a name: got %d", got)
	}
	if got := subscribe(allowed.URL + "/hook-path"); got != 201 {
		t.Fatalf("to a network that is allowed: got %d", got)
	}
	await(t, "attempts at both", func() error {
		var c struct {
			Circuits []struct{ Target, LastError string }
		}
		if err := g.getJSON("/api/v1/health/circuits", &c); err != nil {
			return err
		}
		found := map[string]bool{}
		for _, x := range c.Circuits {
			found[x.LastError[:min(len(x.LastError), 30)]] = true
		}
		if !found["webhook address is private, lo"] || !found["webhook target answered 307"] {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	if reached.Load() != 0 || redirected.Load() == 0 {
		t.Errorf("%d requests came to where none may go, %d to the redirect", reached.Load(), redirected.Load())
	}
}

// getJSON reads the data of an answer to an admin.
func (g *guarded) getJSON(path string, into any) error {
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, g.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+secret("admin"))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	g.bodies.Write(text)
	var body struct{ Data json.RawMessage }
	if err := json.Unmarshal(text, &body); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return json.Unmarshal(body.Data, into)
}
