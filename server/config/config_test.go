package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/server/auth"
)

func TestFaultsNameKeyAndLine(t *testing.T) {
	_, err := Load([]byte("data: /d\nnope: 1\nretention: soon\ndata: /e\nlisten: [a]\nusers:\n- {name: a, password-hash: s3cret, rule: read}\ntokens: x\n"),
		map[string]string{"shards": "0"})
	if !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrBadValue) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{`line 2: unknown key "nope"`, "line 3: retention: bad value", "line 4: data: bad value: key is repeated",
		"line 5: listen: bad value", `line 7: users: unknown key "rule"`, "line 8: tokens: bad value", "flag --shards: bad value"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %q", want, err)
		}
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Error("a secret is in the error")
	}
}

func TestDefaults(t *testing.T) {
	c, err := Load(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Retention != 395*24*time.Hour || c.HeadBytes != 256<<20 || c.Listen != "127.0.0.1:9595" || c.Insecure {
		t.Fatalf("got %+v", c)
	}
	for _, s := range Settings() {
		if s.Help == "" || (s.set == nil) != s.FileOnly {
			t.Errorf("%s is incomplete", s.Name)
		}
	}
}

func TestFlagBeforeFileBeforeDefault(t *testing.T) {
	c, err := Load([]byte("listen: 127.0.0.1:1\nlog-level: warn\nhead-bytes: 2GiB\n"), map[string]string{"listen": "127.0.0.1:2", "insecure": "true"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:2" || c.LogLevel != "warn" || c.HeadBytes != 2<<30 || !c.Insecure || c.Shards != 8 {
		t.Fatalf("got %+v", c)
	}
}

func TestRelations(t *testing.T) {
	for _, file := range []string{"tls-cert: /c\n", "warm-after: 8d\ncold-after: 7d\n",
		"users:\n- {name: ann, password-hash: nonsense, role: read}\n", "tokens:\n- {name: ci, sha256: ab, role: boss}\n"} {
		if _, err := Load([]byte(file), nil); !errors.Is(err, ErrBadValue) {
			t.Errorf("%q: got %v", file, err)
		}
	}
}

func TestSecretsStayOut(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	c, err := Load([]byte("tokens:\n- {name: ci, sha256: "+sum+", role: admin}\nlog-level: warn\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Tokens) != 1 || c.Tokens[0].Role != auth.Admin {
		t.Fatalf("got %+v", c.Tokens)
	}
	if strings.Contains(c.YAML(), sum) || c.Values()["tokens"] != "" {
		t.Error("a hash is shown")
	}
	again, err := Load([]byte(c.YAML()), nil)
	if err != nil || again.LogLevel != "warn" {
		t.Fatalf("the shown settings can't be read back: %v", err)
	}
}

func TestNeedRestart(t *testing.T) {
	was, _ := Load(nil, nil)
	now, err := Load([]byte("log-level: debug\nretention: 1y\nshards: 4\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := was.NeedRestart(now); !slices.Equal(got, []string{"retention", "shards"}) {
		t.Fatalf("got %v", got)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:1\nusers:\n- {name: a, password-hash: b, role: read}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := Load(file, nil)
		if (c == nil) != (err != nil) {
			t.Fatal("neither a config nor an error, or both")
		}
	})
}
