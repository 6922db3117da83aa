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

// TestOrigins: what is listed is compared with what a browser writes, which has no default
// port; what no browser can write is a fault.
func TestOrigins(t *testing.T) {
	c, err := Load([]byte("live-origins: 'https://A.example:443, http://b.example:80,https://c.example:8443,http://[::1]:3000'\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"https://a.example", "http://b.example", "https://c.example:8443", "http://[::1]:3000"}; !slices.Equal(c.LiveOrigins, want) {
		t.Errorf("got %q, want %q", c.LiveOrigins, want)
	}
	if c, err = Load([]byte("live-origins: '*'\n"), nil); err != nil || !slices.Equal(c.LiveOrigins, []string{"*"}) {
		t.Errorf("got %q, %v", c.LiveOrigins, err)
	}
	for _, bad := range []string{"https://*.a.example", "a.example", "https://a.example/", "https://a.example/x", "https://a.example#x", "https://u@a.example", "null"} {
		if _, err := Load([]byte("live-origins: '"+bad+"'\n"), nil); !errors.Is(err, ErrBadValue) {
			t.Errorf("%s: got %v", bad, err)
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

func TestObjectives(t *testing.T) {
	c, err := Load([]byte(`slo:
- name: shop
  target: 99.9
  window: 28d
  good: requests_total{code!~"5.."}
  total: requests_total
  labels: {team: shop}
- name: latency
  target: 95
  error-ratio: sum(rate(slow_total[$window])) / sum(rate(all_total[$window]))
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	if o := c.Objectives; len(o) != 2 || o[0].Window != 28*24*time.Hour || o[0].Labels["team"] != "shop" || o[1].Window != 30*24*time.Hour || o[1].Target != 95 {
		t.Errorf("%+v", o)
	}
	_, err = Load([]byte(`slo:
- name: a
  target: 101
  window: 1h
  good: sum(
- name: b
  target: high
  rate: 1
- name: a
  target: 99
  labels: [x]
- name: c
  target: 99
  error-ratio: x
- name: c
  target: 99
  error-ratio: x[$window]
  labels:
    slo: x
`), nil)
	for _, want := range []string{"line 3: slo: target: bad value", "line 4: slo: window: bad value", "line 5: slo: good: bad value", "line 2: slo: total: bad value",
		`line 7: slo: target: bad value`, `line 8: slo: unknown key "rate"`, "line 11: slo: labels: bad value", "line 14: slo: error-ratio: bad value",
		"line 15: slo: name: bad value", "line 17: slo: error-ratio: bad value", "line 19: slo: labels: bad value"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
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

func TestNoValueIsEmpty(t *testing.T) {
	c, err := Load([]byte("tls-cert: ~\ntls-key: null\nhosts:\ncluster-node: Null\n"), nil)
	if err != nil || c.TLSCert+c.TLSKey+c.ClusterNode != "" || len(c.Hosts) > 0 {
		t.Errorf("got %+v %v", c, err)
	}
}

func TestInForce(t *testing.T) {
	was, _ := Load([]byte("retention: 1d\nrule-interval: 5s\nhosts: [old]\n"), nil)
	now, err := Load([]byte("log-level: debug\nretention: 1y\nhosts: [new]\ntokens: [{name: a, sha256: "+strings.Repeat("ab", 32)+", role: read}]\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := was.InForce(now)
	if got.Retention != 24*time.Hour || got.LogLevel != "debug" || got.RuleInterval != time.Minute || !slices.Equal(got.Hosts, now.Hosts) || len(got.Tokens) != 1 {
		t.Errorf("got %+v", got)
	}
	if v := got.Values(); v["retention"] != "1d" || v["log-level"] != "debug" || v["hosts"] != "new" {
		t.Errorf("got %v", v)
	}
	if v := was.Values(); v["log-level"] != "info" || v["hosts"] != "old" {
		t.Errorf("what was before is %v", v)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:1\nusers:\n- {name: a, password-hash: b, role: read}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("slo:\n- {name: a, target: 99.9, good: 'a{b=\"c\"}', total: a, labels: {x: y}}\n- {name: b, target: 9, window: 7d, error-ratio: 'rate(a[$window])'}\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		c, err := Load(file, nil)
		if (c == nil) != (err != nil) {
			t.Fatal("neither a config nor an error, or both")
		}
	})
}
