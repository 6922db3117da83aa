package rulesfuzz

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/strandline-db/strandline/server/rules"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte("groups:\n- name: g\n  rules:\n  - record: n\n    expr: count(up)\n"))
	f.Add([]byte("groups:\n- name: g\n  query_offset: 1s\n  limit: 1\n  rules:\n  - alert: a\n    expr: 1\n    for: 1m\n    labels: {x: '{{ . }}'}\n"))
	f.Add([]byte("groups:\n- name: g\n- name: g\n- name: ''\n  rules: [{alert: a, record: b}]\n"))
	p := parser.NewParser(parser.Options{})
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, err := rules.Parse("f.yml", b, p, rules.Defaults{Interval: time.Minute})
		if err != nil {
			if !errors.Is(err, rules.ErrBadRules) || !strings.Contains(err.Error(), "f.yml") {
				t.Fatalf("the error %v does not say enough", err)
			}
			return
		}
		for _, g := range groups {
			if g.Interval <= 0 {
				t.Fatalf("interval %v", g.Interval)
			}
			for i := range g.Rules {
				if _, err := p.ParseExpr(g.Rules[i].Query); err != nil {
					t.Fatalf("the expression of a rule became %q: %v", g.Rules[i].Query, err)
				}
			}
		}
	})
}
