package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
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
	s.Mount(fake{}, fakeAPI{})
	for path, want := range map[string][4]int{ // none, read, write, admin
		"/-/healthy":           {200, 200, 200, 200},
		"/-/ready":             {200, 200, 200, 200},
		"/api/v1/write":        {401, 403, 200, 200},
		"/api/v1/query":        {401, 200, 403, 200},
		"/metrics":             {401, 200, 403, 200},
		"/api/v1/panic":        {401, 500, 403, 500},
		"/api/v1/admin/x":      {401, 403, 403, 404},
		"/debug/pprof/profile": {401, 403, 403, 404},
	} {
		for i, role := range []string{"", "read", "write", "admin"} {
			ctx := &fasthttp.RequestCtx{}
			ctx.Request.SetRequestURI(path)
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
