package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/strandline-db/strandline/server/config"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the generated part of README.md")

const readme = "../../README.md"

// settingsTable is the documentation of all settings in Markdown.
func settingsTable() string {
	var b strings.Builder
	b.WriteString("| setting | default | what | |\n|---|---|---|---|\n")
	for _, s := range config.Settings() {
		def, note := "", ""
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		switch {
		case s.FileOnly:
			note = "file only, reload"
		case s.Reloadable:
			note = "reload"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.Name, def, s.Help, note)
	}
	return b.String()
}

func TestReadmeListsSettings(t *testing.T) {
	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(raw), "TestReadmeListsSettings -->\n")
	table, after, ok2 := strings.Cut(rest, "<!-- end of settings -->")
	if !ok || !ok2 {
		t.Fatal("the marks round the table are gone")
	}
	want := settingsTable()
	if table == want {
		return
	}
	if !*rewrite {
		t.Fatalf("the table of settings is not this; run the test with -rewrite:\n%s", want)
	}
	text := before + "TestReadmeListsSettings -->\n" + want + "<!-- end of settings -->" + after
	if err := os.WriteFile(readme, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEverySettingButListsIsAFlag(t *testing.T) {
	cmd := newServe()
	for _, s := range config.Settings() {
		f := cmd.Flags().Lookup(s.Name)
		if (f == nil) != s.FileOnly {
			t.Errorf("%s: flag %v", s.Name, f)
		}
	}
}
