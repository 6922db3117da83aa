package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const promConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: node
  static_configs: [{targets: [%q]}]
remote_write:
- url: %s/api/v1/write
  protobuf_message: %s
  queue_config: {batch_send_deadline: 200ms, min_backoff: 30ms, max_backoff: 100ms}
`

// comparison is one range query; exact wants the same bits, the others the same to 1e-12, since the order in
// which series are added up is the storage's own.
type comparison struct {
	expr  string
	exact bool
}

func comparisons() []comparison {
	return []comparison{
		{`up`, true}, {`node_load1`, true}, {`node_cpu_seconds_total`, true}, {`{__name__=~"node_memory_.+"}`, true},
		{`node_cpu_seconds_total{mode!="idle"}`, true}, {`node_cpu_seconds_total{mode=~"user|system",cpu="0"}`, true},
		{`node_load1 offset 3s`, true}, {`absent(no_such_metric)`, true}, {`absent_over_time(up[5s])`, true},
		{`rate(node_cpu_seconds_total[5s])`, true}, {`irate(node_cpu_seconds_total[5s])`, true}, {`increase(node_context_switches_total[7s])`, true},
		{`delta(node_memory_MemFree_bytes[5s])`, true}, {`deriv(node_memory_MemFree_bytes[6s])`, true}, {`predict_linear(node_memory_MemFree_bytes[6s], 60)`, true},
		{`avg_over_time(node_memory_MemFree_bytes[5s])`, true}, {`max_over_time(node_load1[5s])`, true}, {`min_over_time(node_load1[5s])`, true},
		{`quantile_over_time(0.9, node_memory_MemFree_bytes[8s])`, true}, {`stddev_over_time(node_memory_MemFree_bytes[8s])`, true},
		{`count_over_time(up[4s])`, true}, {`changes(node_memory_MemFree_bytes[6s])`, true}, {`resets(node_cpu_seconds_total[6s])`, true},
		{`last_over_time(node_load5[3s])`, true}, {`timestamp(node_load1)`, true}, {`max_over_time(rate(node_context_switches_total[4s])[6s:1s])`, true},
		{`sum(rate(node_cpu_seconds_total[5s])) by (mode)`, false}, {`avg without (cpu) (node_cpu_seconds_total)`, false},
		{`count(node_cpu_seconds_total) by (cpu)`, true}, {`max(node_cpu_seconds_total) by (mode)`, true}, {`min by (job) (node_filesystem_avail_bytes)`, true},
		{`stddev(node_cpu_seconds_total)`, false}, {`quantile(0.5, node_cpu_seconds_total)`, true}, {`count_values("v", node_cpu_seconds_total{mode="steal"})`, true},
		{`1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes`, true}, {`node_memory_MemTotal_bytes > 0`, true},
		{`node_filesystem_avail_bytes / on (device, mountpoint, fstype, instance, job) node_filesystem_size_bytes`, true},
		{`node_load1 and on (instance) up`, true}, {`node_load1 or node_load5`, true}, {`node_load1 unless on (instance) no_such_metric`, true},
		{`label_replace(up, "host", "$1", "instance", "(.*):.*")`, true}, {`clamp_max(node_load1, 0.1)`, true}, {`histogram_quantile(0.9, node_scrape_collector_duration_seconds)`, true},
		{`sort_desc(node_load1)`, true}, {`scalar(node_load1) * 2`, true}, {`group(node_cpu_seconds_total) by (mode)`, true},
	}
}

// TestSameAnswersAsPrometheus lets a real Prometheus scrape a real node_exporter and write to the server, with
// 1.0, with 2.0, and with 2.0 over a link that loses answers, and asks both servers the same.
func TestSameAnswersAsPrometheus(t *testing.T) {
	prom, exporter := needPrometheus(t), needNodeExporter(t)
	target := freeAddr(t)
	awaitReady(t, start(t, exporter, "--web.listen-address="+target), "http://"+target+"/metrics")
	for _, c := range []struct {
		name, message string
		lossy         bool
		serve         func(*testing.T, string, ...string) *strandline
	}{
		{"remote-write 1.0", "prometheus.WriteRequest", false, serve},
		{"remote-write 2.0", "io.prometheus.write.v2.Request", false, serve},
		{"remote-write 2.0, lost answers", "io.prometheus.write.v2.Request", true, serve},
		{"remote-write 2.0, through a cluster", "io.prometheus.write.v2.Request", false, throughCluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.serve(t, t.TempDir())
			to := s.base
			if c.lossy {
				p := newLossyProxy(t, s.base, 2)
				t.Cleanup(func() {
					if p.dropped.Load() == 0 || p.refused.Load() > 0 {
						t.Errorf("%d answers dropped, %d needless 4xx", p.dropped.Load(), p.refused.Load())
					}
				})
				to = p.URL
			}
			compareServers(t, runPrometheus(t, prom, target, to, c.message), s.base)
		})
	}
}

// runPrometheus starts a Prometheus that scrapes target and writes to the server at to, and returns its URL.
func runPrometheus(t *testing.T, prom, target, to, message string) string {
	t.Helper()
	dir, addr := t.TempDir(), freeAddr(t)
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, promConfig, target, to, message), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, prom, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
	awaitReady(t, c, "http://"+addr+"/-/ready")
	return "http://" + addr
}

// compareServers waits for 20 scrapes, then until the server holds what Prometheus holds of that time, and
// then asks both all the comparisons.
func compareServers(t *testing.T, reference, tested string) {
	t.Helper()
	begin := time.Now()
	var end time.Time
	await(t, "20 scrapes", func() error {
		end = time.Now().Add(-2 * time.Second)
		var m matrix
		if err := rangeQuery(t, reference, `count_over_time(up[1m])`, end, end, &m); err != nil {
			return err
		}
		if len(m) == 0 || len(m[0].Values) == 0 || string(m[0].Values[0][1]) < `"20"` || string(m[0].Values[0][1]) > `"99"` {
			return errors.New("fewer")
		}
		return nil
	})
	await(t, "all samples of the range", func() error {
		window := fmt.Sprintf(`{job=~".+"}[%ds]`, int(end.Sub(begin).Seconds())+5)
		params := url.Values{"query": {window}, "time": {seconds(end)}}
		var a, b matrix
		if err := errors.Join(query(t.Context(), reference, "query", params, &a), query(t.Context(), tested, "query", params, &b)); err != nil {
			return err
		}
		return same(a, b, true)
	})
	if n := len(comparisons()); n < 30 {
		t.Fatalf("only %d queries", n)
	}
	answered := 0
	for _, c := range comparisons() {
		var a, b matrix
		if err := errors.Join(rangeQuery(t, reference, c.expr, begin, end, &a), rangeQuery(t, tested, c.expr, begin, end, &b)); err != nil {
			t.Errorf("%s: %v", c.expr, err)
		} else if err := same(a, b, c.exact); err != nil {
			t.Errorf("%s: %v", c.expr, err)
		}
		if len(a) > 0 {
			answered++
		}
	}
	if answered < 30 {
		t.Fatalf("void: only %d queries had an answer", answered)
	}
}

func seconds(at time.Time) string {
	return strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)
}

func rangeQuery(t *testing.T, base, expr string, from, to time.Time, into *matrix) error {
	return query(t.Context(), base, "query_range", url.Values{"query": {expr}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {"1"}}, into)
}

// same compares two results series by series and point by point.
func same(a, b matrix, exact bool) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d series, want %d", len(b), len(a))
	}
	index := map[string][][2]json.RawMessage{}
	for _, s := range b {
		index[name(s.Metric)] = s.Values
	}
	for _, s := range a {
		got, ok := index[name(s.Metric)]
		if !ok {
			return fmt.Errorf("no series %s", name(s.Metric))
		}
		if len(got) != len(s.Values) {
			return fmt.Errorf("%s: %d points, want %d", name(s.Metric), len(got), len(s.Values))
		}
		for i, want := range s.Values {
			if err := samePoint(want, got[i], exact); err != nil {
				return fmt.Errorf("%s: %w", name(s.Metric), err)
			}
		}
	}
	return nil
}

func samePoint(want, got [2]json.RawMessage, exact bool) error {
	wantAt, wantBits, err1 := parsePoint(want)
	gotAt, gotBits, err2 := parsePoint(got)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	w, g := math.Float64frombits(wantBits), math.Float64frombits(gotBits)
	if wantAt != gotAt || wantBits != gotBits && (exact || math.Abs(w-g) > 1e-12*math.Max(math.Abs(w), math.Abs(g))) {
		return fmt.Errorf("%s %s, want %s %s", got[0], got[1], want[0], want[1])
	}
	return nil
}

func name(metric map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(metric)) {
		fmt.Fprintf(&b, "%s=%q,", k, metric[k])
	}
	return b.String()
}
