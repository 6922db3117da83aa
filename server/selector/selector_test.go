package selector_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/strandline-db/strandline/server/selector"
)

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"up": `{__name__="up"}`, "job:up:sum": `{__name__="job:up:sum"}`, "sum": `{__name__="sum"}`, "inf": `{__name__="inf"}`,
		"http.server.duration": `{__name__="http.server.duration"}`, "größe": `{__name__="größe"}`, "a.b/c-d": `{__name__="a.b/c-d"}`,
		`up{job="a"}`: `up{job="a"}`, ` up {} `: "up", `{"two words"}`: `{__name__="two words"}`, `{a=~"b|c"}`: `{a=~"b|c"}`,
	} {
		vs, err := selector.Parse(newParser(), text)
		if err != nil || vs.String() != want {
			t.Errorf("%s: got %v %v", text, vs, err)
		}
	}
	for _, text := range []string{
		"", "rate(x)", "rate(x[1m])", "rate(x", "a-b", "a/b", "a + b", "1", "x[5m]", "x offset 5m", "x @ 5", "x @ end()", "(up)", `hot{i="1"`,
		"two words", "a=b", `"up"`, "{}", "a,b", "a\xff", "a\nb", strings.Repeat("x ", 5000),
	} {
		vs, err := selector.Parse(newParser(), text)
		if !errors.Is(err, selector.ErrNeither) || len(err.Error()) > 2000 {
			t.Errorf("%.100s: got %v %v", text, vs, err)
		}
	}
}

// FuzzParse: what is accepted selects the same when it is printed and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"up", `up{a="b"}`, `{"a b"}`, "http.server", "rate(x)", "inf"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		vs, err := selector.Parse(newParser(), text)
		if err != nil {
			if !errors.Is(err, selector.ErrNeither) {
				t.Fatal(err)
			}
			return
		}
		again, err := newParser().ParseExpr(vs.String())
		if err != nil || again.String() != vs.String() {
			t.Fatalf("%q became %s and then %v %v", text, vs, again, err)
		}
	})
}
