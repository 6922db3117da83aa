package dash

import (
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for in, want := range map[string][]string{
		"":                             {""},
		"a, b ,,c":                     {"a", "b", "", "c"},
		`a{x="1",y="2"},b`:             {`a{x="1",y="2"}`, "b"},
		`{"a,b",x='},'},c`:             {`{"a,b",x='},'}`, "c"},
		`a{x="\",}"},b{y=` + "`\\`},c": {`a{x="\",}"}`, "b{y=`\\`}", "c"},
		`a},b`:                         {"a}", "b"},
		`a{x="1,b`:                     {`a{x="1,b`},
		`a"\`:                          {`a"\`},
	} {
		if got := split(in); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzSplit: nothing but commas and spaces is lost.
func FuzzSplit(f *testing.F) {
	f.Add(`a{x="1",y='2'},b`)
	f.Fuzz(func(t *testing.T, s string) {
		lose := func(s string) string {
			return strings.Join(strings.FieldsFunc(strings.ReplaceAll(s, ",", ""), func(r rune) bool { return strings.TrimSpace(string(r)) == "" }), "")
		}
		if got := lose(strings.Join(split(s), "")); got != lose(s) {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
