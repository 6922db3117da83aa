package live

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server"
	"github.com/strandline-db/strandline/server/auth"
	"github.com/strandline-db/strandline/server/live/client"
	"github.com/strandline-db/strandline/server/live/frame"
)

// noIngest takes no writes.
type noIngest struct{}

func (noIngest) Handle(*fasthttp.RequestCtx) {}

// certificate makes one for this machine, and the pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// guarded is a server with access rules over f, without TLS, which stops with the test.
func (f *fixture) guarded(o *server.Options) (s *server.Server, addr string) {
	f.t.Helper()
	s, err := server.New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.opts.Access = s.Access
	s.Mount(noIngest{}, f.Server)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(f.Close(ctx), s.Shutdown(ctx), <-served); err != nil {
			f.t.Error(err)
		}
	})
	return s, ln.Addr().String()
}

// rules lets in those who hold the tokens.
func rules(t *testing.T, tokens map[string]auth.Role) *auth.Authenticator {
	t.Helper()
	o := &auth.Options{}
	for secret, role := range tokens {
		sum := sha256.Sum256([]byte(secret))
		o.Tokens = append(o.Tokens, auth.Token{Name: string(role), Hash: hex.EncodeToString(sum[:]), Role: role})
	}
	a, err := auth.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestWithdrawnAccessClosesConnections: of the older form and of events too, and of
// nobody else.
func TestWithdrawnAccessClosesConnections(t *testing.T) {
	f := newFixture(t, nil)
	s, addr := f.guarded(&server.Options{Auth: rules(t, map[string]auth.Role{"goes": auth.Read, "demoted": auth.Read, "promoted": auth.Read, "stays": auth.Read})})
	f.addr = addr
	as := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	var closed, open []*rawClient
	for _, token := range []string{"goes", "demoted", "promoted", "stays"} {
		for path, msg := range map[string]string{PathLive: `{"op":"subscribe","id":"a","query":"m","step":"100ms"}`, PathStream: `{"action":"subscribe","metric":"m"}`} {
			c := f.dial(path, as(token))
			c.send(msg)
			c.next(frame.Ack)
			if token == "goes" || token == "demoted" {
				closed = append(closed, c)
			} else {
				open = append(open, c)
			}
		}
	}
	gone, kept := f.get(PathSSE+"?query=m", as("goes")), f.get(PathSSE+"?query=m", as("stays"))
	if err := s.SetAuth(rules(t, map[string]auth.Role{"demoted": auth.Write, "promoted": auth.Admin, "stays": auth.Read})); err != nil {
		t.Fatal(err)
	}
	f.Recheck()
	for _, c := range closed {
		c.closed(websocket.ClosePolicyViolation)
	}
	body, err := io.ReadAll(gone.Body)
	if err != nil || !strings.Contains(string(body), `"errorType":"unauthorized"`) {
		t.Errorf("%v, got %s", err, body)
	}
	f.put(time.Now(), 1, "__name__", "m")
	for _, c := range open {
		c.next(frame.Data)
	}
	if _, err := io.ReadFull(kept.Body, make([]byte, 64)); err != nil {
		t.Error(err)
	}
	until(t, "only the others are left", func() bool { return len(f.all()) == len(open)+1 })
	if res := f.get(PathSSE+"?query=m", as("goes")); res.StatusCode != 401 {
		t.Errorf("got %d", res.StatusCode)
	}
	if err := s.SetAuth(nil); err != nil { // everyone is let in, and so stays
		t.Fatal(err)
	}
	f.Recheck()
	nobody := f.dial(PathLive, nil)
	if err := s.SetAuth(rules(t, map[string]auth.Role{"stays": auth.Read})); err != nil {
		t.Fatal(err)
	}
	f.Recheck()
	nobody.closed(websocket.ClosePolicyViolation)
	until(t, "only one token's are left", func() bool { return len(f.all()) == 3 })
}

// TestAccessWithdrawnMeanwhile: whoever was let in just before the rules changed.
func TestAccessWithdrawnMeanwhile(t *testing.T) {
	f := newFixture(t, &Options{Access: func(*fasthttp.RequestCtx) func() bool { return func() bool { return false } }})
	if res := f.get(PathSSE+"?query=m", nil); res.StatusCode != 401 {
		t.Errorf("got %d", res.StatusCode)
	}
	until(t, "it is gone", func() bool { return len(f.all()) == 0 })
}

// TestTokenAsSubprotocol: as pages send it, to both endpoints; the answer never holds
// it, nor does a log.
func TestTokenAsSubprotocol(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now(), 1, "__name__", "m")
	var log lockedBuffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.opts.Logger, f.opts.Audit = logger, logger
	_, addr := f.guarded(&server.Options{Auth: rules(t, map[string]auth.Role{"s3cret/+": auth.Read, "writer": auth.Write}), Logger: logger, Audit: logger})
	f.addr = addr
	bearer := func(token string) string { return "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token)) }
	for _, path := range []string{PathLive, PathStream} {
		for _, c := range []struct {
			offer  []string
			origin string
			status int
		}{
			{[]string{protocol, bearer("s3cret/+")}, "", 101},
			{[]string{bearer("s3cret/+"), protocol}, "http://" + addr, 101},
			{[]string{bearer("s3cret/+")}, "", 400},
			{[]string{protocol, bearer("s3cret/+")}, "http://evil.example", 403},
			{[]string{protocol, bearer("writer")}, "", 403},
			{[]string{protocol, bearer("other")}, "", 401},
			{[]string{protocol, bearer("s3cret/+"), bearer("s3cret/+")}, "", 401},
			{[]string{protocol}, "", 401},
		} {
			header := http.Header{}
			if c.origin != "" {
				header.Set("Origin", c.origin)
			}
			ws, res, err := (&websocket.Dialer{Subprotocols: c.offer}).Dial("ws://"+addr+path, header)
			if res == nil || res.StatusCode != c.status {
				t.Fatalf("%s %v from %q: got %v %v", path, c.offer, c.origin, res, err)
			}
			if c.status != 101 {
				continue
			}
			if got := res.Header.Values("Sec-Websocket-Protocol"); len(got) != 1 || got[0] != protocol {
				t.Errorf("%s: got %q", path, got)
			}
			_ = ws.Close()
		}
	}
	// A plain request shows its token in a header, whatever protocols it offers.
	if res := f.get(PathSSE+"?query=m", http.Header{"Sec-Websocket-Protocol": {protocol + "," + bearer("s3cret/+")}}); res.StatusCode != 401 {
		t.Errorf("got %d", res.StatusCode)
	}
	// What is wrong with a request is logged, and not what stands in it.
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte("GET / HTTP/1.1\r\nSec-WebSocket-Protocol: " + bearer("s3cret/+") + "\r\nAuthorization: Bearer s3cret/+\r\nbad header\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(nc); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); strings.Contains(got, "s3cret") || strings.Contains(got, bearer("s3cret/+")) || !strings.Contains(got, "denied") || !strings.Contains(got, "header") {
		t.Errorf("logged %s", got)
	}
}

// TestRolesOverTLS: the whole server, with TLS and tokens, lets readers in alone.
func TestRolesOverTLS(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now(), 42, "__name__", "m")
	a := rules(t, map[string]auth.Role{"s3cret-read": auth.Read, "s3cret-write": auth.Write})
	cert, pool := certificate(t)
	var audit lockedBuffer
	s, err := server.New(&server.Options{Auth: a, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Audit: slog.New(slog.NewTextHandler(&audit, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Mount(noIngest{}, f.Server)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for token, ok := range map[string]bool{"s3cret-read": true, "s3cret-write": false, "s3cret-none": false, "": false} {
		c, err := client.New([]string{"https://" + ln.Addr().String()}, &client.Options{Token: token, TLS: &tls.Config{RootCAs: pool}})
		if err != nil {
			t.Fatal(err)
		}
		sub, err := c.Subscribe(client.Query{Expr: "m", Step: 100 * time.Millisecond})
		if err == nil {
			for n := 0; n < 3 && err == nil; n++ {
				_, err = sub.Next(ctx)
			}
		}
		if ok && err != nil || !ok && !errors.Is(err, client.ErrRefused) {
			t.Errorf("%s: got %v", token, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := strings.Count(audit.String(), "msg=denied"); n != 3 || strings.Contains(audit.String(), "s3cret") {
		t.Errorf("%d denials in %s", n, audit.String())
	}
	if err := f.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
