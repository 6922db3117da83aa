package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestIdentify(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("tok"))
	a, err := New(&Options{
		Users:  []User{{"ann", string(hash), Write}},
		Tokens: []Token{{"ci", hex.EncodeToString(sum[:]), Admin}},
	})
	if err != nil {
		t.Fatal(err)
	}
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for header, want := range map[string]Role{
		basic("ann:pw"): Write, "Bearer tok": Admin, "bearer tok": Admin,
		basic("ann:no"): "", basic("bob:pw"): "", "Bearer no": "", "Basic !": "", "": "",
	} {
		for range 2 { // the second time from the cache
			id, err := a.Identify(header)
			if id.Role != want || (want == "") != errors.Is(err, ErrDenied) {
				t.Errorf("%q: got %v %v", header, id, err)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	for _, r := range []Role{Read, Write, Admin} {
		for _, need := range []Role{Read, Write, Admin} {
			if got, want := r.Allows(need), r == need || r == Admin; got != want {
				t.Errorf("%s for %s: %v", r, need, got)
			}
		}
	}
}

func TestBadOptionsTellNoSecret(t *testing.T) {
	_, err := New(&Options{Users: []User{{"ann", "s3cret", Read}}, Tokens: []Token{{"ci", "s3cret", "boss"}}})
	if !errors.Is(err, ErrBadOptions) || strings.Contains(err.Error(), "s3cret") {
		t.Fatalf("got %v", err)
	}
}

// FuzzIdentify: no header lets in who has no account.
func FuzzIdentify(f *testing.F) {
	a, err := New(&Options{Tokens: []Token{{"ci", hex.EncodeToString(make([]byte, sha256.Size)), Admin}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("Bearer ")
	f.Add("Basic " + base64.StdEncoding.EncodeToString([]byte("a:b")))
	f.Fuzz(func(t *testing.T, header string) {
		if id, err := a.Identify(header); !errors.Is(err, ErrDenied) {
			t.Fatalf("%q is %v, %v", header, id, err)
		}
	})
}
