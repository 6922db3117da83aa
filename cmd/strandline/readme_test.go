package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

func TestReadmeExampleRuns(t *testing.T) {
	raw, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(raw), "```go\n")
	code, _, ok2 := strings.Cut(code, "```")
	if !ok || !ok2 {
		t.Fatal("there is no Go example")
	}
	dir := t.TempDir()
	file, bin := filepath.Join(dir, "main.go"), filepath.Join(dir, "example")
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `{__name__="temperature", room="kitchen"}`) || !strings.Contains(string(out), "[21.5]") {
		t.Fatalf("%v\n%s", err, out)
	}
}
