package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	pairScrape = 500 // milliseconds
	pairBucket = 10 * 60 * 1000
	pairPhase  = 5 // scrapes
)

const pairConfig = `
global: {scrape_interval: 500ms, scrape_timeout: 500ms, external_labels: {__replica__: %s}}
scrape_configs:
- job_name: node
  static_configs: [{targets: [%q]}]
remote_write:
- url: %s/api/v1/write
  queue_config: {batch_send_deadline: 100ms, min_backoff: 30ms, max_backoff: 100ms}
`

// scraper is a Prometheus of a pair, which can be stopped and started.
type scraper struct {
	prom, dir, config string
	running           *child
}

func newScraper(t *testing.T, prom, replica, target, to string) *scraper {
	t.Helper()
	s := &scraper{prom: prom, dir: t.TempDir()}
	s.config = filepath.Join(s.dir, "prometheus.yml")
	if err := os.WriteFile(s.config, fmt.Appendf(nil, pairConfig, replica, target, to), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(t)
	return s
}

func (s *scraper) start(t *testing.T) {
	t.Helper()
	addr := freeAddr(t)
	s.running = start(t, s.prom, "--config.file="+s.config, "--storage.tsdb.path="+filepath.Join(s.dir, "data"), "--web.listen-address="+addr)
	awaitReady(t, s.running, "http://"+addr+"/-/ready")
}

// stop ends it; it sends what it has first.
func (s *scraper) stop(t *testing.T) {
	t.Helper()
	s.running.signal(syscall.SIGTERM)
	if err := s.running.awaitExit(t); err != nil {
		t.Fatalf("%v: %s", err, s.running.tail())
	}
}

// timesOf returns when a selector's only series has samples, in milliseconds up to end.
func timesOf(t *testing.T, base, selector string, end time.Time) (out []int64, err error) {
	var m matrix
	if err := query(t.Context(), base, "query", url.Values{"query": {selector + "[10m]"}, "time": {seconds(end)}}, &m); err != nil || len(m) == 0 {
		return nil, err
	}
	if len(m) > 1 {
		return nil, fmt.Errorf("%s: %d series", selector, len(m))
	}
	for _, v := range m[0].Values {
		at, _, err := parsePoint(v)
		if err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	return out, nil
}

// awaitScrapes waits until a server has some scrapes more of one of the pair.
func awaitScrapes(t *testing.T, base, replica string) {
	t.Helper()
	begin, selector := time.Now().UnixMilli(), fmt.Sprintf("up{__replica__=%q}", replica)
	await(t, "scrapes of "+replica, func() error {
		times, err := timesOf(t, base, selector, time.Now())
		if err != nil {
			return err
		}
		if n := len(slices.DeleteFunc(times, func(at int64) bool { return at < begin })); n < pairPhase {
			return fmt.Errorf("%d of %d", n, pairPhase)
		}
		return nil
	})
}

// TestPairOfPrometheuses: two real ones scrape the same target and send to a cluster. One is
// stopped and started again, then the other is stopped: every node shows one series,
// without a gap and without a sample too many.
func TestPairOfPrometheuses(t *testing.T) {
	prom, exporter := needPrometheus(t), needNodeExporter(t)
	target := freeAddr(t)
	awaitReady(t, start(t, exporter, "--web.listen-address="+target, "--collector.disable-defaults", "--collector.loadavg"), "http://"+target+"/metrics")
	c := newTrio(t, func(string) []string { return []string{"--shards", "4"} })
	a := newScraper(t, prom, "a", target, c.nodes[0].base)
	b := newScraper(t, prom, "b", target, c.nodes[1].base)
	base := c.nodes[2].base
	awaitScrapes(t, base, "a")
	awaitScrapes(t, base, "b")
	a.stop(t)
	awaitScrapes(t, base, "b")
	a.start(t)
	awaitScrapes(t, base, "a")
	b.stop(t)
	awaitScrapes(t, base, "a")
	a.stop(t)

	end := time.Now()
	for i, n := range c.nodes {
		got, err := timesOf(t, n.base, "up", end)
		first, err1 := timesOf(t, n.base, `up{__replica__="a"}`, end)
		second, err2 := timesOf(t, n.base, `up{__replica__="b"}`, end)
		if err := errors.Join(err, err1, err2); err != nil {
			t.Fatal(err)
		}
		t.Logf("n%d: %d samples, of %d and %d of the two", i+1, len(got), len(first), len(second))
		oneSeries(t, got, slices.Sorted(slices.Values(slices.Concat(first, second))))
		alwaysThere(t, n.base, got, end)
	}
	sameEverywhere(t, c, end)
}

// oneSeries wants scrapes of one Prometheus: none within half an interval of the last, and
// none further than one and a half from it if either of the pair has one between. Where two
// of the ten minutes meet for which senders are chosen, it may be half an interval less, or more.
func oneSeries(t *testing.T, got, sent []int64) {
	t.Helper()
	regular, took := 0, int64(0)
	for i := 1; i < len(got); i++ {
		gap, least, most := got[i]-got[i-1], int64(pairScrape/2), int64(pairScrape*3/2)
		if got[i]/pairBucket != got[i-1]/pairBucket {
			least, most = 0, 2*pairScrape
		}
		missed := slices.ContainsFunc(sent, func(at int64) bool { return at-got[i-1] > pairScrape/2+10 && got[i]-at > pairScrape/2+10 })
		if gap < least-10 || gap > most+10 && missed {
			t.Errorf("%d ms between two samples, at %d and %d", gap, got[i-1], got[i])
		}
		if gap <= most+10 {
			regular++
			took += gap
		}
	}
	// At each change of sender the distance may be half an interval off.
	if want := int(took / pairScrape); regular < want-4 || regular > want+4 || regular < 4*pairPhase {
		t.Errorf("%d samples in %d ms, want some %d", regular, took, want)
	}
}

// alwaysThere wants one series, up, at each step, and as many samples as were seen.
func alwaysThere(t *testing.T, base string, times []int64, end time.Time) {
	t.Helper()
	var counts, number matrix
	first, last := time.UnixMilli(times[0]), time.UnixMilli(times[len(times)-1])
	if err := rangeQuery(t, base, "count(up)", first, last, &counts); err != nil {
		t.Fatal(err)
	}
	if steps := int(last.Sub(first).Seconds()) + 1; len(counts) != 1 || len(counts[0].Values) != steps {
		t.Fatalf("there is something at %v of %d steps", counts, steps)
	}
	for _, v := range counts[0].Values {
		if string(v[1]) != `"1"` {
			t.Errorf("%s series at %s", v[1], v[0])
		}
	}
	if err := rangeQuery(t, base, "count_over_time(up[10m])", end, end, &number); err != nil {
		t.Fatal(err)
	}
	if len(number) != 1 || string(number[0].Values[0][1]) != fmt.Sprintf("%q", fmt.Sprint(len(times))) {
		t.Errorf("count_over_time gives %v of %d samples", number, len(times))
	}
}

// sameEverywhere wants the same answers of all nodes.
func sameEverywhere(t *testing.T, c *trio, end time.Time) {
	t.Helper()
	for _, expr := range []string{`{job="node"}`, "rate(up[5s])", "changes(timestamp(up)[1m:1s])", "avg_over_time(node_load1[3s])", "sum(node_load5)"} {
		var all [3]matrix
		for i, n := range c.nodes {
			if err := rangeQuery(t, n.base, expr, end.Add(-time.Minute), end, &all[i]); err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			if len(all[i]) == 0 || !reflect.DeepEqual(all[i], all[0]) {
				t.Errorf("%s: n%d answers\n%v, n1\n%v", expr, i+1, all[i], all[0])
			}
		}
	}
}
