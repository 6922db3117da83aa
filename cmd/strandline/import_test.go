package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool runs the binary and returns what it printed.
func tool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

func TestImportAndExport(t *testing.T) {
	dir := t.TempDir()
	lines, text, data := filepath.Join(dir, "l"), filepath.Join(dir, "t"), filepath.Join(dir, "data")
	const want = `{"metric":{"__name__":"a","job":"x"},"values":[1.5,"NaN","NaN:7ff0000000000002","Infinity",-0],"timestamps":[1700000000000,1700000001000,1700000002000,1700000003000,1700000004000]}` + "\n"
	for name, content := range map[string]string{lines: want, text: "# TYPE b counter\nb_total{job=\"x\"} 3 1700000000.5\n# EOF\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, data, "--retention", "0", "--self-scrape-interval", "0")
	for range 2 { // the second time changes nothing
		if got := tool(t, "import", lines, "--server", p.url); got != "5 samples stored\n" {
			t.Errorf("got %s", got)
		}
	}
	tool(t, "import", text, "--server", p.url, "--format", "openmetrics")
	p.stop()
	got := tool(t, "export", "--data", data, "--match", `{job="x"}`)
	if got != want+`{"metric":{"__name__":"b_total","job":"x"},"values":[3],"timestamps":[1700000000500]}`+"\n" {
		t.Errorf("got\n%s", got)
	}
	if got := tool(t, "export", "--data", data, "--match", "a", "--start", "1700000003", "--end", "1700000003"); !strings.Contains(got, `"values":["Infinity"]`) {
		t.Errorf("got\n%s", got)
	}
}
