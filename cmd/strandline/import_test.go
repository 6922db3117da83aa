package main

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestValuesSurviveJSONLines(t *testing.T) {
	for _, bits := range []uint64{0, 1 << 63, 1, math.Float64bits(math.NaN()), 0x7ff0000000000002, 0x7ff8000000000000, 0xfff8000000000123,
		math.Float64bits(math.Inf(1)), math.Float64bits(math.Inf(-1)), math.Float64bits(0.1), math.Float64bits(math.MaxFloat64)} {
		b, err := json.Marshal(value(math.Float64frombits(bits)))
		if err != nil {
			t.Fatal(err)
		}
		var v value
		if err := json.Unmarshal(b, &v); err != nil || math.Float64bits(float64(v)) != bits {
			t.Errorf("%#x became %s and then %#x (%v)", bits, b, math.Float64bits(float64(v)), err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"metric":{"__name__":"m"},"values":[1,"NaN"],"timestamps":[1,2]}`))
	f.Add([]byte(`{"metric":{},"values":["0x"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLine(b)
		if err == nil && (len(l.Metric) == 0 || len(l.Values) != len(l.Timestamps)) {
			t.Fatalf("accepted %+v", l)
		}
	})
}

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
	const want = `{"metric":{"__name__":"a","job":"x"},"values":[1.5,"NaN","0x7ff0000000000002","+Inf",-0],"timestamps":[1700000000000,1700000001000,1700000002000,1700000003000,1700000004000]}` + "\n"
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
	if got := tool(t, "export", "--data", data, "--match", "a", "--start", "1700000003", "--end", "1700000003"); !strings.Contains(got, `"values":["+Inf"]`) {
		t.Errorf("got\n%s", got)
	}
}
