package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/auth"
)

type fake struct{}

func (fake) Handle(*fasthttp.RequestCtx) {}

type fakeAPI struct{}

func (fakeAPI) Handle(ctx *fasthttp.RequestCtx) bool {
	if string(ctx.Path()) == "/api/v1/panic" {
		panic("x")
	}
	return string(ctx.Path()) == "/api/v1/query"
}

// fakeLive is a second handler of paths.
type fakeLive struct{}

func (fakeLive) Handle(ctx *fasthttp.RequestCtx) bool { return string(ctx.Path()) == "/api/v1/live" }

func TestEveryRouteAgainstEveryRole(t *testing.T) {
	var tokens []auth.Token
	for _, r := range []auth.Role{auth.Read, auth.Write, auth.Admin} {
		sum := sha256.Sum256([]byte(r))
		tokens = append(tokens, auth.Token{Name: string(r), Hash: hex.EncodeToString(sum[:]), Role: r})
	}
	a, err := auth.New(&auth.Options{Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(&Options{Auth: a, Metrics: func(*fasthttp.RequestCtx) {}})
	if err != nil {
		t.Fatal(err)
	}
	s.Mount(fake{}, fakeAPI{}, fakeLive{})
	for path, want := range map[string][4]int{ // none, read, write, admin
		"/-/healthy":                 {200, 200, 200, 200},
		"/-/ready":                   {200, 200, 200, 200},
		"/api/v1/write":              {401, 403, 200, 200},
		"/api/v1/query":              {401, 200, 403, 200},
		"/api/v1/live":               {401, 200, 403, 200},
		"/metrics":                   {401, 200, 403, 200},
		"/api/v1/metrics/realtime":   {401, 404, 403, 404},
		"/api/v1/metrics/historical": {401, 404, 403, 404},
		"/api/v1/slo":                {401, 404, 403, 404},
		"/api/v1/panic":              {401, 500, 403, 500},
		"/api/v1/admin/x":            {401, 403, 403, 404},
		"/debug/pprof/profile":       {401, 403, 403, 0}, // to admins it answers, for seconds

		"/api/v1/alerts/subscribe":              {401, 404, 403, 404},
		"/api/v1/alerts/subscribe/x":            {401, 404, 403, 404},
		"POST /api/v1/alerts/subscribe":         {401, 403, 403, 404},
		"DELETE /api/v1/alerts/subscribe/x":     {401, 403, 403, 404},
		"DELETE /api/v1/alerts//subscribe/x":    {401, 403, 403, 404},
		"DELETE /api/v1/x/../alerts/subscribe/": {401, 403, 403, 404},
	} {
		for i, role := range []string{"", "read", "write", "admin"} {
			if want[i] == 0 {
				continue
			}
			ctx := &fasthttp.RequestCtx{}
			method, uri, given := strings.Cut(path, " ")
			if !given {
				method, uri = "GET", path
			}
			ctx.Request.Header.SetMethod(method)
			ctx.Request.SetRequestURI(uri)
			ctx.Request.Header.Set("Authorization", "Bearer "+role)
			s.handle(ctx)
			if got := ctx.Response.StatusCode(); got != want[i] {
				t.Errorf("%s as %q: got %d, want %d", path, role, got, want[i])
			}
		}
	}
}

func TestRefusesOpenListener(t *testing.T) {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(ln); !errors.Is(err, ErrOpenListener) {
		t.Fatalf("got %v", err)
	}
}

func TestAnswers503UntilMounted(t *testing.T) {
	s, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) int {
		ctx := &fasthttp.RequestCtx{}
		ctx.Request.SetRequestURI(path)
		s.handle(ctx)
		return ctx.Response.StatusCode()
	}
	check := func(ready int) {
		t.Helper()
		for path, want := range map[string]int{"/-/healthy": 200, "/-/ready": ready, "/api/v1/write": ready, "/api/v1/query": ready} {
			if got := get(path); got != want {
				t.Errorf("%s: got %d, want %d", path, got, want)
			}
		}
	}
	check(503)
	s.Mount(fake{}, fakeAPI{}, fakeLive{})
	check(200)
	s.Unmount()
	check(503)
}

func TestAuthIsReplacedButNotGivenUpInTheOpen(t *testing.T) {
	a, err := auth.New(&auth.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(&Options{Auth: a})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetAuth(nil); err != nil {
		t.Fatalf("behind loopback: %v", err)
	}
	s.exposed.Store(true)
	if err := s.SetAuth(nil); !errors.Is(err, ErrOpenListener) {
		t.Fatalf("in the open: %v", err)
	}
	if err := s.SetAuth(a); err != nil || s.auth.Load() != a {
		t.Fatalf("in the open, to another: %v", err)
	}
}

// TestHosts: who asks by another name is a page elsewhere whose name was made to point here.
func TestHosts(t *testing.T) {
	for _, hosts := range [][]string{nil, {"metrics.example"}} {
		s, err := New(&Options{Hosts: hosts})
		if err != nil {
			t.Fatal(err)
		}
		s.Mount(fake{}, fakeAPI{}, fakeLive{})
		for host, ok := range map[string]bool{
			"metrics.example": true, "Metrics.Example:9595": true, "metrics.example.": true, "localhost:9595": true, "LOCALHOST": true,
			"127.0.0.1:9595": true, "[::1]:9595": true, "[::1]": true, "192.0.2.7": true,
			"evil.example": false, "evil.example:9595": false, "metrics.example.evil.example": false, "localhost.evil.example": false,
			"127.0.0.1.evil.example": false, "": false,
		} {
			for _, path := range []string{"/api/v1/query", "/api/v1/live", "/api/v1/write", "/-/healthy"} {
				ctx := &fasthttp.RequestCtx{}
				ctx.Request.Header.SetRequestURI(path)
				ctx.Request.Header.SetHost(host)
				s.handle(ctx)
				want := 200
				if hosts != nil && !ok && path != "/-/healthy" {
					want = 421
				}
				if got := ctx.Response.StatusCode(); got != want {
					t.Errorf("%v: %s of %q: got %d, want %d", hosts, path, host, got, want)
				}
			}
		}
	}
}

// TestForeignPagesChangeNothing: a browser would send the user's credentials along.
func TestForeignPagesChangeNothing(t *testing.T) {
	var audit strings.Builder
	s, err := New(&Options{Audit: slog.New(slog.NewTextHandler(&audit, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Mount(fake{}, fakeAPI{}, fakeLive{})
	denied := 0
	for origin, ok := range map[string]bool{
		"": true, "http://here.example:9595": true, "https://HERE.example:9595": true,
		"http://here.example": false, "https://evil.example": false, "null": false, "http://here.example:9595.evil.example": false, "::": false,
	} {
		for path, changes := range map[string]bool{
			"POST /api/v1/write": true, "POST /api/v1/admin/backup": true, "POST /api/v1/alerts/subscribe": true, "DELETE /api/v1/alerts/subscribe/x": true,
			"GET /api/v1/alerts/subscribe": false, "POST /api/v1/query": false, "OPTIONS /api/v1/write": false,
		} {
			ctx := &fasthttp.RequestCtx{}
			method, uri, _ := strings.Cut(path, " ")
			ctx.Request.Header.SetMethod(method)
			ctx.Request.Header.SetRequestURI(uri)
			ctx.Request.Header.SetHost("here.example:9595")
			if origin != "" {
				ctx.Request.Header.Set("Origin", origin)
			}
			s.handle(ctx)
			if got := ctx.Response.StatusCode(); (got == 403) != (changes && !ok) {
				t.Errorf("%s of a page from %q: got %d", path, origin, got)
			} else if got == 403 {
				denied++
			}
		}
	}
	if got := strings.Count(audit.String(), "msg=denied"); got != denied || denied == 0 {
		t.Errorf("%d denials are in the log, want %d", got, denied)
	}
}

func TestBadOptionsAreAllReported(t *testing.T) {
	_, err := New(&Options{MaxBody: -1, MaxConns: -1})
	if !errors.Is(err, ErrBadOptions) || !strings.Contains(err.Error(), "MaxBody") || !strings.Contains(err.Error(), "MaxConns") {
		t.Fatalf("got %v", err)
	}
}
