package live

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/query"
)

// forms are queries that share an evaluation with the first of their line, and the text
// that this has.
var forms = []struct {
	text  string
	forms []string
}{
	{`up`, []string{`up`, `up{}`, `(up)`, `((up{}))`, `{__name__="up"}`, `{"up"}`, ` ( { __name__ = 'up' } ) # it`}},
	{`up{a="1",b="2"}`, []string{`up{b="2",a="1"}`, `{__name__="up",b="2",a="1"}`, `({"up",a="1",b="2"})`, `{b="2",__name__="up",a="1"}`}},
	{`sum by (a) (up)`, []string{`sum(up)by(a)`, `sum by (a) ((up))`, `(sum by (a) ({__name__="up"}))`}},
	{`rate(up[1m])`, []string{`rate(up[60s])`, `(rate({"up"}[1m]))`, `rate({__name__="up"}[60s])`}},
	{`up + up{a="1"}`, []string{`(up)+(up{a="1"})`, `{"up"} + {"up",a="1"}`}},
	{`-up`, []string{`-(up)`, `-{"up"}`}},
	{`topk(2, up)`, []string{`topk((2), (up))`}},
	{`quantile(1 - 0.5, up)`, []string{`quantile((1-0.5),(up))`}},
	{`max_over_time(up[1m:10s])`, []string{`max_over_time((up)[1m:10s])`, `max_over_time(({"up"})[60s:10s])`}},
	{`up offset 10s`, []string{`{__name__="up"} offset 10s`, `(up{} offset 10s)`}},
	{`absent(up{a="9",b="8"})`, []string{`absent((up{b="8",a="9"}))`, `absent({__name__="up",b="8",a="9"})`}},
	// What must stay apart.
	{`(up + up) * up`, []string{`(up+up)*up`, `((up+up))*((up))`}},
	{`up + up * up`, []string{`up+up*up`}},
	{`(-1) ^ 2 + up`, []string{`(-1)^2+up`}},
	{`-1 ^ 2 + up`, []string{`-1^2+up`}},
	{`{__name__="inf"}`, []string{`{__name__="inf"}`, `{"inf"}`}},
	{`{__name__="sum"}`, []string{`{__name__="sum"}`}},
	{`{__name__="by"} + up`, []string{`{"by"} + up`}},
	{`{__name__="http.server"}`, []string{`{"http.server"}`}},
	{`{__name__=~"up"}`, []string{`{__name__=~"up"}`}},
	{`{__name__="up",__name__=~"u."}`, []string{`{__name__=~"u.",__name__="up"}`}},
	{`{__name__="",a="1"}`, []string{`{a="1",__name__=""}`}},
	{`absent(up{a=~".*9",a="9"})`, []string{`absent(up{a=~".*9",a="9"})`}},
	{`absent(up{a="9",a=~".*9"})`, []string{`absent(up{a="9",a=~".*9"})`}},
	{`absent_over_time(up{a="9",a="9"}[1m])`, []string{`absent_over_time(up{a="9",a="9"}[1m])`}},
}

// TestForms: those that mean the same share an evaluation, and all mean what the
// client wrote.
func TestForms(t *testing.T) {
	f := newFixture(t, nil)
	for _, name := range []string{"up", "inf", "sum", "by", "http.server"} {
		for i := range 3 {
			f.put(labels.FromStrings("__name__", name, "a", fmt.Sprint(i), "b", "2"), start.UnixMilli()-1000, float64(i*i)+0.5)
		}
	}
	answer := func(q string) string {
		t.Helper()
		res, err := f.engine.Instant(context.Background(), q, start, query.QueryOptions{})
		if err != nil {
			t.Fatal(q, err)
		}
		defer res.Close()
		return res.Value.String()
	}
	for i, c := range forms {
		for _, q := range c.forms {
			s := f.subscribe(Request{Query: q, Step: time.Second})
			if got := s.Info().Query; got != c.text {
				t.Errorf("%s: got %s, want %s", q, got, c.text)
			}
			if got, want := answer(s.Info().Query), answer(q); got != want {
				t.Errorf("%s gives %s, but %s gives %s", q, want, s.Info().Query, got)
			}
		}
		if got := f.Stats().Queries; got != i+1 {
			t.Errorf("after %s: %d evaluations, want %d", c.text, got, i+1)
		}
	}
}
