package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/strandline-db/strandline/wal/clock"
)

// writePair makes a self-signed certificate with the serial number.
func writePair(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"},
		NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), serial)
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), serial)
}

func write(t *testing.T, file string, b []byte, age int64) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000+age, 0) // another time for each writing, however fast
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateIsReloadedWhenItChanges(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	writePair(t, certFile, keyFile, 1)
	c := clock.NewManual(time.Unix(1_700_000_000, 0))
	r, err := LoadCertificate(certFile, keyFile, nil, c)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() int64 {
		t.Helper()
		cert, err := r.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.Int64()
	}
	writePair(t, certFile, keyFile, 2)
	if got := serial(); got != 1 {
		t.Fatalf("looked at the files too soon: got %d", got)
	}
	c.Advance(certCheck)
	if got := serial(); got != 2 {
		t.Fatalf("got %d after a change", got)
	}
	write(t, keyFile, []byte("half"), 3)
	c.Advance(certCheck)
	if got := serial(); got != 2 {
		t.Fatalf("a broken pair was taken: %d", got)
	}
	if r.Reload() == nil {
		t.Fatal("a broken pair is no error")
	}
	writePair(t, certFile, keyFile, 4)
	if err := r.Reload(); err != nil || serial() != 4 {
		t.Fatalf("Reload: %v, %d", err, serial())
	}
}
