package config

import (
	"errors"
	"strings"
	"testing"
)

func TestParseNamesKeyAndLine(t *testing.T) {
	_, err := Parse([]byte("data: /d\nnope: 1\nretention: soon\ndata: /e\nlisten: [a]\n"))
	if !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrBadValue) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{`line 2: unknown key "nope"`, "line 3: retention: bad value", "line 4: data: bad value: key is repeated", "line 5: listen: bad value"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %q", want, err)
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	for _, s := range Settings() {
		if err := s.check(s.Default); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

func TestParseEmptyAndGood(t *testing.T) {
	if v, err := Parse(nil); err != nil || len(v) != 0 {
		t.Fatalf("empty file: %v %v", v, err)
	}
	v, err := Parse([]byte("listen: 127.0.0.1:1\nlog-level: warn\n"))
	if err != nil || v["listen"] != "127.0.0.1:1" || v["log-level"] != "warn" {
		t.Fatalf("got %v %v", v, err)
	}
}
