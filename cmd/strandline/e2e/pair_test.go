package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal/clock"
)

const (
	pairInterval = 15_000
	pairScrapes  = 960 // four hours
)

// scraped is a request of a sender with the scrapes from one on up to another, of two series.
func scraped(sender string, phase, begin int64, from, to int) []byte {
	req := &prompb.WriteRequest{}
	for s := range 2 {
		ts := prompb.TimeSeries{Labels: []prompb.Label{{Name: "__name__", Value: "seconds_total"}, {Name: "__replica__", Value: sender}, {Name: "s", Value: fmt.Sprint(s)}}}
		for i := from; i < to; i++ {
			at := begin + phase + int64(i)*pairInterval
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: at, Value: float64(at-begin) / 1000 * float64(s+1)})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	raw, err := req.Marshal()
	if err != nil {
		panic(err) // it is ours
	}
	return snappy.Encode(nil, raw)
}

// send writes a sender's scrapes, in requests of some.
func send(t *testing.T, base, sender string, phase, begin int64, from, to int) {
	t.Helper()
	for ; from < to; from += 100 {
		status, text, err := post(t.Context(), http.DefaultClient, base, v1, scraped(sender, phase, begin, from, min(to, from+100)))
		if err != nil || status/100 != 2 {
			t.Fatalf("%d %s: %v", status, text, err)
		}
	}
}

// pairAnswers are the answers to questions of different kinds about the pair's series.
func pairAnswers(t *testing.T, base string, begin int64) map[string]map[string]points {
	t.Helper()
	out := map[string]map[string]points{}
	for _, expr := range []string{"seconds_total", "rate(seconds_total[1m])", "count_over_time(seconds_total[10m])", "sum(increase(seconds_total[5m]))", "timestamp(seconds_total)"} {
		var m []struct {
			Metric map[string]string
			Values points
		}
		if err := query(t.Context(), base, "query_range", url.Values{"query": {expr}, "step": {"20"},
			"start": {fmt.Sprint(begin/1000 + 600)}, "end": {fmt.Sprint((begin + pairScrapes*pairInterval) / 1000)}}, &m); err != nil {
			t.Fatalf("%s: %v", expr, err)
		}
		out[expr] = map[string]points{}
		for _, s := range m {
			out[expr][fmt.Sprint(s.Metric)] = s.Values
		}
	}
	return out
}

// withoutGap wants a rate at every step of both series, and what was sent.
func withoutGap(t *testing.T, answers map[string]map[string]points) {
	t.Helper()
	rates := answers["rate(seconds_total[1m])"]
	if len(rates) != 2 {
		t.Fatalf("%d series, want 2", len(rates))
	}
	for s := range 2 {
		ps := rates[fmt.Sprint(map[string]string{"s": fmt.Sprint(s)})]
		if want := (pairScrapes*pairInterval/1000-600)/20 + 1; len(ps) != want {
			t.Fatalf("series %d has a rate at %d steps of %d", s, len(ps), want)
		}
		for _, p := range ps {
			if v := math.Float64frombits(p.bits); math.Abs(v-float64(s+1)) > 1e-6 {
				t.Fatalf("series %d rises by %g a second at %d", s, v, p.ms)
			}
		}
	}
}

// samplesOf counts what there is of one sender.
func samplesOf(t *testing.T, base, sender string, begin int64) int {
	t.Helper()
	var v []struct{ Value [2]json.RawMessage }
	expr := fmt.Sprintf("sum(count_over_time(seconds_total{__replica__=%q}[5h]))", sender)
	if err := query(t.Context(), base, "query", url.Values{"query": {expr}, "time": {fmt.Sprint((begin + pairScrapes*pairInterval + 60_000) / 1000)}}, &v); err != nil {
		t.Fatal(err)
	}
	if len(v) == 0 {
		return 0
	}
	_, bits, err := parsePoint(v[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	return int(math.Float64frombits(bits))
}

// grownOld opens the folder of a server that has ended as if three weeks had passed, and
// lets the storage do what is due.
func grownOld(t *testing.T, dir string) {
	t.Helper()
	db, err := engine.Open(dir, &engine.Options{PairLabel: "__replica__", Clock: clock.NewManual(time.Now().Add(21 * 24 * time.Hour)), Retention: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(db.Maintain(t.Context()), db.Flush(t.Context())); err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(db.Maintain(t.Context()), db.Close()); err != nil {
		t.Error(err)
	}
}

// TestPairOfSenders: one of two senders dies and comes back; no query has a gap, nor after
// the merges that keep one series of the two, which no query sees. What the sender brings
// later of the time in which it was away is taken in.
func TestPairOfSenders(t *testing.T) {
	dir := t.TempDir()
	begin := time.Now().Add(-5 * time.Hour).Truncate(10 * time.Minute).UnixMilli()
	s := serve(t, dir)
	send(t, s.base, "a", 0, begin, 0, 400)
	send(t, s.base, "b", 7_000, begin, 0, 650)
	send(t, s.base, "a", 0, begin, 600, pairScrapes)
	send(t, s.base, "b", 7_000, begin, 650, pairScrapes)
	before := pairAnswers(t, s.base, begin)
	withoutGap(t, before)
	if a, b := samplesOf(t, s.base, "a", begin), samplesOf(t, s.base, "b", begin); a != 2*(pairScrapes-200) || b != 2*pairScrapes {
		t.Fatalf("%d and %d samples of the senders", a, b)
	}
	s.signal(syscall.SIGKILL)
	_ = s.awaitExit(t) // killed

	grownOld(t, dir)
	s = serve(t, dir)
	if after := pairAnswers(t, s.base, begin); !reflect.DeepEqual(after, before) {
		t.Errorf("the merges changed answers: %v, before %v", after, before)
	}
	a, b := samplesOf(t, s.base, "a", begin), samplesOf(t, s.base, "b", begin)
	if a+b > 2*(pairScrapes+10) || b < 2*200 {
		t.Errorf("%d and %d samples of the senders are left of %d", a, b, 2*pairScrapes)
	}
	send(t, s.base, "a", 0, begin, 400, 600)
	withoutGap(t, pairAnswers(t, s.base, begin))
	s.terminate(t)
	grownOld(t, dir)
	s = serve(t, dir)
	withoutGap(t, pairAnswers(t, s.base, begin))
	s.terminate(t)
}
