package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestServeDashboardsAndObjectives: both answer over what was written, and objectives
// change with a reload, rules included.
func TestServeDashboardsAndObjectives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yml")
	put := func(name string) {
		t.Helper()
		text := "slo:\n- {name: " + name + ", target: 99, good: 'good_total', total: 'all_total'}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first")
	p := start(t, t.TempDir(), "--config", file, "--self-scrape-interval", "0", "--dashboard-max-metrics", "3", "--dashboard-cache-life", "0")
	now := time.Now()
	for k := range 4 {
		at := now.Add(time.Duration(k-3) * 30 * time.Second)
		p.write("all_total", at, float64(100*k))
		p.write("good_total", at, float64(98*k))
	}
	get := func(path string, code int, want ...string) {
		t.Helper()
		got, body := p.get(path)
		for _, w := range want {
			if got != code || !strings.Contains(body, w) {
				t.Errorf("%s: %d %s, want %q", path, got, body, w)
			}
		}
	}
	get("/api/v1/metrics/realtime?metrics=all_total,good_total", 200, `"status":"ok"`, `"value":300,`, `"value":294,`)
	get("/api/v1/metrics/realtime?metrics=a,b,c,d", 400, "dashboard-max-metrics")
	get("/api/v1/metrics/historical?metric=all_total&period=1d&granularity=1d&agg=max&open=true", 200, `"metric":"all_total"`, `"value":300,"open":true`)
	get("/api/v1/slo", 200, `"name":"first"`, `"state":"ticket"`)
	var slo struct {
		Data struct{ Objectives []struct{ Ratio float64 } }
	}
	if _, body := p.get("/api/v1/slo"); json.Unmarshal([]byte(body), &slo) != nil || len(slo.Data.Objectives) != 1 ||
		math.Abs(slo.Data.Objectives[0].Ratio-0.98) > 1e-12 { // to the last bit it depends on the time
		t.Errorf("the ratio is not 0.98: %s", body)
	}
	get("/api/v1/rules", 200, `slo:burn_rate:ratio_rate30d`, "SLOErrorBudgetBurn")
	get("/metrics", 200, `strandline_answer_cache_hit_ratio{cache="dashboard"}`)
	put("second")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.waitFor("config reloaded")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the answer before may be given again for a second
		if _, body := p.get("/api/v1/slo"); strings.Contains(body, `"name":"second"`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the reload did not reach /api/v1/slo")
		}
	}
	p.stop()
}
