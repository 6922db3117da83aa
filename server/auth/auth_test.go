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

// TestHolds: a change of the secret, the role or the list is seen, and nothing else.
func TestHolds(t *testing.T) {
	hash := func(pw string) string {
		h, err := bcrypt.GenerateFromPassword([]byte(pw), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		return string(h)
	}
	sum := func(token string) string {
		s := sha256.Sum256([]byte(token))
		return hex.EncodeToString(s[:])
	}
	pw, other := hash("pw"), hash("other")
	made := func(o *Options) *Authenticator {
		a, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	before := made(&Options{Users: []User{{"ann", pw, Read}}, Tokens: []Token{{"ci", sum("tok"), Read}}})
	ann, err := before.Identify("Basic " + base64.StdEncoding.EncodeToString([]byte("ann:pw")))
	if err != nil {
		t.Fatal(err)
	}
	ci, err := before.Identify("Bearer tok")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o       Options
		ann, ci bool
	}{
		"as before":  {Options{Users: []User{{"ann", pw, Read}}, Tokens: []Token{{"ci", sum("tok"), Read}}}, true, true},
		"promoted":   {Options{Users: []User{{"ann", pw, Admin}}, Tokens: []Token{{"ci", sum("tok"), Admin}}}, true, true},
		"renamed":    {Options{Tokens: []Token{{"cd", strings.ToUpper(sum("tok")), Read}}}, false, true},
		"other role": {Options{Users: []User{{"ann", pw, Write}}, Tokens: []Token{{"ci", sum("tok"), Write}}}, false, false},
		"other pw":   {Options{Users: []User{{"ann", other, Read}}, Tokens: []Token{{"ci", sum("kot"), Read}}}, false, false},
		"gone":       {Options{Users: []User{{"bob", pw, Read}}}, false, false},
	} {
		a := made(&c.o)
		if a.Holds(ann, Read) != c.ann || a.Holds(ci, Read) != c.ci || a.Holds(Identity{}, Read) {
			t.Errorf("%s: got %v %v", name, a.Holds(ann, Read), a.Holds(ci, Read))
		}
	}
}

func TestAuthorization(t *testing.T) {
	coded := base64.RawURLEncoding.EncodeToString([]byte("to/k+en?"))
	for want, offers := range map[string][][]string{
		"Bearer to/k+en?": {{"strandline.v1, bearer." + coded}, {"bearer." + coded + ",strandline.v1"}, {"strandline.v1", " bearer." + coded}},
		"": {nil, {"strandline.v1"}, {"bearer."}, {"bearer.*"}, {"Bearer." + coded}, {"xbearer." + coded}, {"bearer." + coded + "=="},
			{"bearer." + coded + ", bearer." + coded}, {"bearer." + coded, "bearer.eA"}},
	} {
		for _, o := range offers {
			if got := Authorization(o); got != want {
				t.Errorf("%q: got %q", o, got)
			}
		}
	}
}

// FuzzAuthorization: what is found is what was offered.
func FuzzAuthorization(f *testing.F) {
	f.Add("strandline.v1, bearer.dG9r")
	f.Add("bearer.dG9r,bearer.eA")
	f.Fuzz(func(t *testing.T, offer string) {
		got, ok := strings.CutPrefix(Authorization([]string{offer}), "Bearer ")
		flat := strings.NewReplacer("\r", "", "\n", "").Replace(offer) // which no header has
		if ok && !strings.Contains(flat, "bearer."+base64.RawURLEncoding.EncodeToString([]byte(got))) {
			t.Fatalf("%q gave %q", offer, got)
		}
	})
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
