package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestCertNames: a certificate is never written over the authority's, or outside the folder.
func TestCertNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if err := makeCerts(dir, []string{"n1"}, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	read := func() []byte {
		b, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	before := read()
	for _, name := range []string{"ca", "", ".", "..", "../n2", "a/b", ".hidden", "*", "n*", "a b", "a\nb", "ü4"} {
		if err := makeCerts(dir, []string{"n3", name}, false, io.Discard); !errors.Is(err, errCertName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "n3.crt")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a certificate was made beside a bad name: %v", err)
	}
	if err := makeCerts(dir, []string{"n2"}, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, read()) {
		t.Error("the authority has changed")
	}
}

// TestCertsKept: the key of a node that has one is made anew only if that is asked for.
func TestCertsKept(t *testing.T) {
	dir := t.TempDir()
	key := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "n1.key"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if err := makeCerts(dir, []string{"n1"}, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	first := key()
	if err := makeCerts(dir, []string{"n2", "n1"}, false, io.Discard); !errors.Is(err, errCertThere) {
		t.Errorf("made again: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "n2.crt")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one of two was made: %v", err)
	}
	if key() != first {
		t.Error("the key has changed")
	}
	if err := makeCerts(dir, []string{"n1"}, true, io.Discard); err != nil {
		t.Fatal(err)
	}
	if key() == first {
		t.Error("the key is the old one")
	}
}

// TestCertIsForItsNode: a certificate is good for the node that it is made out to, also for one
// that is named by its address, and for no other.
func TestCertIsForItsNode(t *testing.T) {
	dir := t.TempDir()
	names := []string{"n1", "node_2", "3", "a.example", "10.0.0.1", "10.0.0.2"}
	if err := makeCerts(dir, names, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range names {
			if err := pair.Leaf.VerifyHostname(other); (err == nil) != (name == other) {
				t.Errorf("the certificate of %s for %s: %v", name, other, err)
			}
		}
	}
}
