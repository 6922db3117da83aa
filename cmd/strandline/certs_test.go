package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestCertNames: a certificate is never written over the authority's, or outside the folder.
func TestCertNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if err := makeCerts(dir, []string{"n1"}, io.Discard); err != nil {
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
	for _, name := range []string{"ca", "", ".", "..", "../n2", "a/b", ".hidden"} {
		if err := makeCerts(dir, []string{"n3", name}, io.Discard); !errors.Is(err, errCertName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "n3.crt")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a certificate was made beside a bad name: %v", err)
	}
	if err := makeCerts(dir, []string{"n2"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, read()) {
		t.Error("the authority has changed")
	}
}
