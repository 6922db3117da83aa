package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/strandline-db/strandline/"

// arrows names, for each top folder, the project folders its packages may import
// beside their own (design.md). cmd and bench may import anything.
var arrows = map[string][]string{
	"wal":     {},
	"shard":   {"wal"},
	"engine":  {"shard", "wal"},
	"cluster": {"engine", "wal", "shard/model", "wal/vfs", "wal/clock"},
	"query":   {"shard/model", "wal/vfs", "wal/clock"},
	"server":  {"query", "shard/model", "wal/vfs", "wal/clock"},
}

func goList(t *testing.T, format string, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestImportDirection(t *testing.T) {
	for _, line := range goList(t, `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...") {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		top, _, _ := strings.Cut(pkg, "/")
		allowed, ruled := arrows[top]
		for _, imp := range fields[1:] {
			to, ours := strings.CutPrefix(imp, module)
			if ours && ruled && !mayImport(top, allowed, to) {
				t.Errorf("%s must not import %s", pkg, to)
			}
			if ours && (within(to, "cmd") || within(to, "bench")) && !within(pkg, "cmd") && !within(pkg, "bench") {
				t.Errorf("%s must not import %s", pkg, to)
			}
		}
	}
	for _, line := range goList(t, `{{.ImportPath}}{{range .Deps}} {{.}}{{end}}`, "./engine/...", "./shard/...", "./wal/...") {
		fields := strings.Fields(line)
		if slices.Contains(fields[1:], "github.com/prometheus/prometheus/promql") {
			t.Errorf("%s must not depend on promql", strings.TrimPrefix(fields[0], module))
		}
	}
}

func mayImport(top string, allowed []string, to string) bool {
	if within(to, top) {
		return true
	}
	for _, a := range allowed {
		if within(to, a) {
			return true
		}
	}
	return false
}

func within(pkg, folder string) bool {
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}
