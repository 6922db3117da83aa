package live

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server"
	"github.com/strandline-db/strandline/server/auth"
	"github.com/strandline-db/strandline/server/live/client"
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

// TestRolesOverTLS: the whole server, with TLS and tokens, lets readers in alone.
func TestRolesOverTLS(t *testing.T) {
	f := newFixture(t, nil)
	f.put(time.Now(), 42, "__name__", "m")
	var tokens []auth.Token
	for _, r := range []auth.Role{auth.Read, auth.Write} {
		sum := sha256.Sum256([]byte("s3cret-" + r))
		tokens = append(tokens, auth.Token{Name: string(r), Hash: hex.EncodeToString(sum[:]), Role: r})
	}
	a, err := auth.New(&auth.Options{Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
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
