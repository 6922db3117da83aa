package server

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// TestUnreadableRequests: a request that can't be read is answered for what it is, and one of
// a sender of remote-write that was slow so that it tries again.
func TestUnreadableRequests(t *testing.T) {
	s, err := New(&Options{MaxBody: 10})
	if err != nil {
		t.Fatal(err)
	}
	s.http.ReadTimeout = 50 * time.Millisecond
	s.Mount(fake{}, fakeAPI{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(ln) }()
	for _, c := range []struct {
		sent, text string
		code       int
	}{
		{"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", "max-body-bytes", 413},
		{"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + strings.Repeat("x", 255) + "\r\n", "max-body-bytes", 413},
		{"GET /" + strings.Repeat("x", 20000) + " HTTP/1.1\r\nHost: x\r\n\r\n", "form in the body", 431},
		{"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nslow", "in time", 503},
		{"POST /api/v1/query HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nslow", "in time", 503},
		{"\x16\x03\x01\r\n\r\n", "HTTP/1.1", 400},
	} {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(conn, c.sent) }() // it may not want all of it
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%.60q: %v", c.sent, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != c.code || !strings.Contains(string(body), c.text) {
			t.Errorf("%.60q: got %d %s %v", c.sent, res.StatusCode, body, err)
		}
		if err := errors.Join(res.Body.Close(), conn.Close()); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(s.Shutdown(t.Context()), <-served); err != nil {
		t.Error(err)
	}
}

// TestProfilesAreListed: the list of profiles is where those of Go have it.
func TestProfilesAreListed(t *testing.T) {
	s, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := &fasthttp.RequestCtx{}
	ctx.Request.SetRequestURI("/debug/pprof/")
	s.handle(ctx)
	if ctx.Response.StatusCode() != 200 || !strings.Contains(string(ctx.Response.Body()), "heap") {
		t.Errorf("got %d %s", ctx.Response.StatusCode(), ctx.Response.Body())
	}
}
