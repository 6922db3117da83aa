package dash_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/valyala/fasthttp"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/dash"
	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreAnyFunction("k8s.io/klog/v2.(*flushDaemon).run.func1"))
}

// noon is the present of these tests.
var noon = time.Date(2026, 3, 4, 12, 0, 30, 0, time.UTC)

type fixture struct {
	store *querytest.Store
	q     *query.Engine
	clk   *clock.Manual
	d     *dash.Dash
}

func newFixture(t *testing.T, o *dash.Options) *fixture {
	t.Helper()
	if o == nil {
		o = &dash.Options{}
	}
	f := &fixture{store: querytest.New(), clk: clock.NewManual(noon)}
	o.Clock = f.clk
	var err error
	if f.q, err = query.New(f.store, nil); err != nil {
		t.Fatal(err)
	}
	if f.d, err = dash.New(f.store, f.q, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.d.Close(); err != nil || f.store.Open() != 0 {
			t.Errorf("%v, %d selections open", err, f.store.Open())
		}
	})
	return f
}

// add stores one sample, age before the present.
func (f *fixture) add(t *testing.T, series string, age time.Duration, v float64, h *histogram.Histogram) {
	t.Helper()
	ms, err := f.q.Parser().ParseMetric(series)
	if err != nil {
		t.Fatal(err)
	}
	b := &model.Batch{Series: []model.BatchSeries{{Key: model.AppendKey(nil, ms)}}}
	at := noon.Add(-age).UnixMilli()
	if h == nil {
		b.Series[0].To, b.T, b.V = 1, []int64{at}, []float64{v}
	} else {
		b.Series[0].HTo, b.Hist = 1, []model.HistogramSample{{T: at, H: h}}
	}
	if _, err := f.store.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) get(path string, args ...string) (int, string) {
	return f.do("GET", path, args...)
}

func (f *fixture) do(method, path string, args ...string) (int, string) {
	v := url.Values{}
	for i := 0; i+1 < len(args); i += 2 {
		v.Add(args[i], args[i+1])
	}
	var rc fasthttp.RequestCtx
	rc.Request.Header.SetMethod(method)
	rc.Request.SetRequestURI(path + "?" + v.Encode())
	if !f.d.Handle(&rc) {
		return 0, ""
	}
	return rc.Response.StatusCode(), string(rc.Response.Body())
}

func TestRealtime(t *testing.T) {
	f := newFixture(t, nil)
	f.add(t, `revenue{region="eu"}`, 20*time.Second, 7, nil)
	f.add(t, `revenue{region="eu"}`, 10*time.Second, 10.5, nil)
	f.add(t, `revenue{region="us"}`, 15*time.Second, 4, nil)
	f.add(t, `revenue{region="old"}`, 5*time.Minute, 99, nil)
	f.add(t, `revenue{region="gone"}`, 9*time.Second, 1, nil)
	f.add(t, `revenue{region="gone"}`, 8*time.Second, math.Float64frombits(value.StaleNaN), nil)
	f.add(t, `revenue{region="later"}`, -time.Second, 1, nil)
	f.add(t, `odd{path="a,\"b\"",x="1"}`, time.Second, math.Inf(-1), nil)
	f.add(t, `hist`, time.Second, 0, &histogram.Histogram{Count: 3, Sum: 1.5, ZeroCount: 3, Schema: 1})
	code, body := f.get(dash.PathRealtime, "metrics", `revenue, odd{path="a,\"b\"",x=~"1|2"},hist`, "metrics", "none,revenue")
	want := `{"timestamp":"2026-03-04T12:00:30.000Z","health":{"status":"ok","uptime_seconds":0},"metrics":{` +
		`"revenue":{"timestamp":"2026-03-04T12:00:20.000Z","value":14.5,"series":[` +
		`{"labels":{"__name__":"revenue","region":"eu"},"timestamp":"2026-03-04T12:00:20.000Z","value":10.5},` +
		`{"labels":{"__name__":"revenue","region":"us"},"timestamp":"2026-03-04T12:00:15.000Z","value":4}]},` +
		`"odd{path=\"a,\\\"b\\\"\",x=~\"1|2\"}":{"timestamp":"2026-03-04T12:00:29.000Z","value":"-Inf","series":[` +
		`{"labels":{"__name__":"odd","path":"a,\"b\"","x":"1"},"timestamp":"2026-03-04T12:00:29.000Z","value":"-Inf"}]},` +
		`"hist":{"timestamp":null,"value":null,"series":[{"labels":{"__name__":"hist"},"timestamp":"2026-03-04T12:00:29.000Z","value":null,"histogram":{"count":3,"sum":1.5}}]},` +
		`"none":{"timestamp":null,"value":null,"series":[]}}}`
	if code != 200 || body != want {
		t.Errorf("%d\n got %s\nwant %s", code, body, want)
	}
	for reduce, want := range map[string]string{"sum": "14.5", "avg": "7.25", "min": "4", "max": "10.5"} {
		if _, body := f.get(dash.PathRealtime, "metrics", "revenue", "reduce", reduce); !strings.Contains(body, `12:00:20.000Z","value":`+want+`,`) {
			t.Errorf("%s: %s", reduce, body)
		}
	}
}

func TestHealth(t *testing.T) {
	sick := errors.New(`no "quorum"`)
	f := newFixture(t, &dash.Options{Ready: func() error { return sick }})
	if _, body := f.get(dash.PathRealtime, "metrics", "x"); !strings.Contains(body, `"health":{"status":"degraded","reason":"no \"quorum\"",`) {
		t.Error(body)
	}
}

type answer struct {
	Metric, Agg, Reduce string
	Granularity         float64 `json:"granularity_seconds"`
	Data                []point
	Series              []struct {
		Labels map[string]string
		Data   []point
	}
}

type point struct {
	Timestamp time.Time
	Value     any
	Open      bool
	Histogram *struct{ Count, Sum float64 }
}

func (f *fixture) history(t *testing.T, args ...string) answer {
	t.Helper()
	code, body := f.get(dash.PathHistorical, args...)
	var a answer
	if err := json.Unmarshal([]byte(body), &a); err != nil || code != 200 {
		t.Fatalf("%d %v %s", code, err, body)
	}
	return a
}

func TestHistorical(t *testing.T) {
	f := newFixture(t, nil)
	for _, age := range []int{10, 40, 70, 100, 130} { // at second 20 and 50 of each minute
		f.add(t, "m", time.Duration(age)*time.Second, float64(age), nil)
	}
	code, body := f.get(dash.PathHistorical, "metric", "m", "period", "3m", "granularity", "1m", "open", "true")
	want := `{"metric":"m","agg":"avg","reduce":"sum","granularity_seconds":60,` +
		`"data":[{"timestamp":"2026-03-04T11:59:00.000Z","value":115},{"timestamp":"2026-03-04T12:00:00.000Z","value":55},{"timestamp":"2026-03-04T12:00:30.000Z","value":10,"open":true}],` +
		`"series":[{"labels":{},"data":[{"timestamp":"2026-03-04T11:59:00.000Z","value":115},{"timestamp":"2026-03-04T12:00:00.000Z","value":55},{"timestamp":"2026-03-04T12:00:30.000Z","value":10,"open":true}]}]}`
	if code != 200 || body != want {
		t.Errorf("%d\n got %s\nwant %s", code, body, want)
	}
	a := f.history(t, "metric", `{__name__="m"}`, "period", "60", "granularity", "30s", "agg", "max", "end", "2026-03-04T11:59:59Z")
	if len(a.Data) != 2 || a.Data[0].Value != 100.0 || !a.Data[1].Timestamp.Equal(noon.Add(-time.Minute)) || a.Reduce != "max" {
		t.Errorf("%+v", a)
	}
	a = f.history(t, "metric", "m", "period", "3m", "granularity", "1m", "end", "2026-03-04T12:05:00Z") // in the future
	if n := len(a.Data); n != 2 || !a.Data[n-1].Timestamp.Equal(noon.Add(-30*time.Second)) {
		t.Errorf("a window that has not ended is given as whole: %+v", a)
	}
	if a := f.history(t, "metric", "none"); len(a.Data) != 0 || len(a.Series) != 0 {
		t.Errorf("%+v", a)
	}
}

// TestHistoricalIsPromQL compares each aggregation and reduction with the query that
// it stands for, on random data with gaps.
func TestHistoricalIsPromQL(t *testing.T) {
	f := newFixture(t, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 5 {
		for age := time.Second; age < time.Hour; age += time.Duration(1+rnd.IntN(90)) * time.Second {
			f.add(t, fmt.Sprintf(`m{i="%d"}`, i), age, rnd.NormFloat64()*1e3, nil)
		}
	}
	for agg, fn := range map[string]string{"avg": "avg_over_time", "sum": "sum_over_time", "min": "min_over_time", "max": "max_over_time", "rate": "rate"} {
		for _, reduce := range []string{"sum", "avg", "min", "max"} {
			a := f.history(t, "metric", `m{i!="3"}`, "period", "1h", "granularity", "1m", "agg", agg, "reduce", reduce)
			if len(a.Data) < 40 {
				t.Fatalf("%s %s: %d points", agg, reduce, len(a.Data))
			}
			for _, p := range a.Data {
				res, err := f.q.Instant(t.Context(), fmt.Sprintf(`%s(%s(m{i!="3"}[1m]))`, reduce, fn), p.Timestamp, query.QueryOptions{})
				if err != nil {
					t.Fatal(err)
				}
				v, _ := res.Vector()
				if got := p.Value.(float64); len(v) != 1 || math.Abs(got-v[0].F) > 1e-12*math.Abs(v[0].F) {
					t.Errorf("%s %s at %s: %v, want %v", agg, reduce, p.Timestamp, got, v)
				}
				res.Close()
			}
		}
	}
}

func TestHistoricalHistograms(t *testing.T) {
	f := newFixture(t, nil)
	f.add(t, "h", 40*time.Second, 0, &histogram.Histogram{Count: 3, Sum: 1.5, ZeroCount: 3, Schema: 1})
	f.add(t, "h", 5*time.Second, 0, &histogram.Histogram{Count: 4, Sum: 2.5, ZeroCount: 4, Schema: 1})
	a := f.history(t, "metric", "h", "period", "1m", "granularity", "1m", "open", "1")
	if len(a.Data) != 0 || len(a.Series) != 1 || len(a.Series[0].Data) != 2 {
		t.Fatalf("%+v", a)
	}
	if d := a.Series[0].Data; d[0].Value != nil || d[0].Histogram.Count != 3 || d[1].Histogram.Sum != 2.5 || !d[1].Open {
		t.Errorf("%+v", d)
	}
}

func TestFaults(t *testing.T) {
	f := newFixture(t, &dash.Options{MaxMetrics: 2, MaxSeries: 2, MaxResponseBytes: 1000})
	for i := range 3 {
		f.add(t, fmt.Sprintf(`wide{i="%d"}`, i), time.Second, 1, nil)
	}
	for age := range 100 {
		f.add(t, "long", time.Duration(age)*time.Second, 1, nil)
	}
	for _, c := range []struct {
		code int
		kind string
		part string
		path string
		args []string
	}{
		{400, "bad_data", `parameter \"metrics\"`, dash.PathRealtime, nil},
		{400, "bad_data", "parse error", dash.PathRealtime, []string{"metrics", "a{"}},
		{400, "bad_data", "plain selector", dash.PathRealtime, []string{"metrics", "a offset 5m"}},
		{400, "bad_data", "plain selector", dash.PathRealtime, []string{"metrics", "a @ 5"}},
		{400, "bad_data", "plain selector", dash.PathRealtime, []string{"metrics", "rate(a[5m])"}},
		{400, "bad_data", "more than 2 metrics", dash.PathRealtime, []string{"metrics", "a,b", "metrics", "c"}},
		{400, "bad_data", `\"median\" is none of`, dash.PathRealtime, []string{"metrics", "a", "reduce", "median"}},
		{422, "execution", "dashboard-max-series", dash.PathRealtime, []string{"metrics", "wide"}},
		{400, "bad_data", `parameter \"metric\"`, dash.PathHistorical, nil},
		{400, "bad_data", "not a duration", dash.PathHistorical, []string{"metric", "a", "period", "soon"}},
		{400, "bad_data", "at least 1ms", dash.PathHistorical, []string{"metric", "a", "granularity", "0s"}},
		{400, "bad_data", "less than the granularity", dash.PathHistorical, []string{"metric", "a", "period", "1m"}},
		{400, "bad_data", "11000 points", dash.PathHistorical, []string{"metric", "a", "granularity", "1s"}},
		{400, "bad_data", `\"p99\" is none of`, dash.PathHistorical, []string{"metric", "a", "agg", "p99"}},
		{400, "bad_data", "RFC 3339", dash.PathHistorical, []string{"metric", "a", "end", "today"}},
		{400, "bad_data", "not true or false", dash.PathHistorical, []string{"metric", "a", "open", "half"}},
		{422, "execution", "dashboard-max-series", dash.PathHistorical, []string{"metric", "wide", "period", "1m", "granularity", "1s"}},
		{422, "execution", "1000 response bytes", dash.PathHistorical, []string{"metric", "long", "period", "1m", "granularity", "1s"}},
	} {
		code, body := f.get(c.path, c.args...)
		if code != c.code || !strings.Contains(body, `{"status":"error","errorType":"`+c.kind+`"`) || !strings.Contains(body, c.part) {
			t.Errorf("%s %q: %d %s", c.path, c.args, code, body)
		}
	}
	for err, want := range map[error]int{model.ErrOverloaded: 503, model.ErrClosed: 503, &model.CorruptionError{Path: "p", Err: errors.New("crc")}: 500} {
		f.store.SetError(err)
		for _, path := range []string{dash.PathRealtime, dash.PathHistorical} {
			if code, body := f.get(path, "metrics", "a", "metric", "a"); code != want {
				t.Errorf("%s, %v: %d %s", path, err, code, body)
			}
		}
	}
	f.store.SetError(nil)
	if code, _ := f.do("POST", dash.PathRealtime); code != 405 {
		t.Error(code)
	}
	if code, _ := f.do("OPTIONS", dash.PathRealtime); code != 204 {
		t.Error(code)
	}
	if code, _ := f.get("/api/v1/metrics/stream"); code != 0 {
		t.Error(code)
	}
}

// TestCache: an answer serves for its life; a request that asks for fresh data gets it.
func TestCache(t *testing.T) {
	fresh := false
	f := newFixture(t, &dash.Options{Fresh: func(ctx context.Context, _ *fasthttp.RequestCtx) (context.Context, bool, error) {
		return ctx, fresh, nil
	}})
	value := func() string {
		_, body := f.get(dash.PathRealtime, "metrics", "m")
		_, rest, _ := strings.Cut(body, `"value":`)
		v, _, _ := strings.Cut(rest, ",")
		return v
	}
	f.add(t, "m", 2*time.Second, 1, nil)
	if v := value(); v != "1" {
		t.Fatal(v)
	}
	f.add(t, "m", time.Second, 2, nil)
	if v := value(); v != "1" {
		t.Errorf("not from the cache: %s", v)
	}
	fresh = true
	if v := value(); v != "2" {
		t.Errorf("stale although asked for fresh data: %s", v)
	}
	fresh = false
	f.clk.Advance(100 * time.Millisecond)
	if v := value(); v != "2" {
		t.Errorf("from the cache past its life: %s", v)
	}
	if err := f.d.Close(); err != nil {
		t.Fatal(err)
	}
	f.clk.Advance(time.Second)
	if code, body := f.get(dash.PathRealtime, "metrics", "m"); code != 503 || !strings.Contains(body, `"errorType":"unavailable"`) {
		t.Errorf("closed: %d %s", code, body)
	}
}

// stuck is a storage whose SelectAll ends only with its context.
type stuck struct{ *querytest.Store }

func (stuck) SelectAll(ctx context.Context, _ []*model.SelectRequest) ([]*model.Selection, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestTimeout(t *testing.T) {
	d, err := dash.New(stuck{querytest.New()}, newFixture(t, nil).q, &dash.Options{Timeout: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{d: d}
	if code, body := f.get(dash.PathRealtime, "metrics", "m"); code != 503 || !strings.Contains(body, `"errorType":"timeout"`) {
		t.Errorf("%d %s", code, body)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	_, err := dash.New(nil, nil, &dash.Options{MaxSeries: -1, Lookback: -1})
	if !errors.Is(err, dash.ErrBadOptions) || !strings.Contains(err.Error(), "MaxSeries") || !strings.Contains(err.Error(), "Lookback") {
		t.Error(err)
	}
}

// FuzzRequests: whatever is asked, the answer is JSON with a status that fits.
func FuzzRequests(f *testing.F) {
	f.Add(true, `a,b{c="x,y"},'d'`, "sum")
	f.Add(false, `m{i="1"}`, "period=1h&granularity=1m&agg=rate&open=1&end=1772625630")
	f.Add(false, "m", "period=1e300&granularity=-1&end=NaN")
	s := querytest.New()
	key := model.AppendKey(nil, labels.FromStrings("__name__", "m", "i", "1"))
	if _, err := s.Append(context.Background(), &model.Batch{Series: []model.BatchSeries{{Key: key, To: 1}}, T: []int64{noon.UnixMilli() - 1}, V: []float64{math.NaN()}}); err != nil {
		f.Fatal(err)
	}
	q, err := query.New(s, nil)
	if err != nil {
		f.Fatal(err)
	}
	d, err := dash.New(s, q, &dash.Options{Clock: clock.NewManual(noon)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { d.Close() })
	f.Fuzz(func(t *testing.T, realtime bool, metric, rest string) {
		var rc fasthttp.RequestCtx
		path := dash.PathHistorical + "?metric=" + url.QueryEscape(metric) + "&" + rest
		if realtime {
			path = dash.PathRealtime + "?metrics=" + url.QueryEscape(metric) + "&reduce=" + rest
		}
		rc.Request.SetRequestURI(path)
		if !d.Handle(&rc) {
			return // a fragment or the like moved the path
		}
		if code := rc.Response.StatusCode(); code != 200 && code != 400 && code != 422 || !json.Valid(rc.Response.Body()) {
			t.Fatalf("%q: %d %s", path, code, rc.Response.Body())
		}
	})
}

// seenReader notes what the context of a Select says.
type seenReader struct {
	model.Reader
	seen any
}

type syncedKey struct{}

func (r *seenReader) SelectAll(ctx context.Context, reqs []*model.SelectRequest) ([]*model.Selection, error) {
	r.seen = ctx.Value(syncedKey{})
	return r.Reader.SelectAll(ctx, reqs)
}

// TestSynced: what Fresh has synced is what is read, whether the answer is kept or not.
func TestSynced(t *testing.T) {
	for _, asked := range []bool{false, true} {
		f := newFixture(t, nil)
		f.add(t, "up", time.Second, 1, nil)
		r := &seenReader{Reader: f.store}
		d, err := dash.New(r, f.q, &dash.Options{Clock: f.clk, Fresh: func(ctx context.Context, _ *fasthttp.RequestCtx) (context.Context, bool, error) {
			return context.WithValue(ctx, syncedKey{}, "yes"), asked, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		var rc fasthttp.RequestCtx
		rc.Request.SetRequestURI(dash.PathRealtime + "?metrics=up")
		if !d.Handle(&rc) || rc.Response.StatusCode() != 200 || r.seen != "yes" {
			t.Errorf("asked %v: %d %s, read with %v", asked, rc.Response.StatusCode(), rc.Response.Body(), r.seen)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestWarnings: what an answer lacks is told, in those kept for others too, and only to
// those who take such an answer.
func TestWarnings(t *testing.T) {
	f := newFixture(t, &dash.Options{
		Fresh: func(ctx context.Context, rc *fasthttp.RequestCtx) (context.Context, bool, error) {
			return context.WithValue(ctx, syncedKey{}, string(rc.QueryArgs().Peek("partial"))), false, nil
		},
		Warnings: func(ctx context.Context) []string {
			if ctx.Value(syncedKey{}) == "true" {
				return []string{`shards [3] are <missing>`}
			}
			return nil
		},
	})
	f.add(t, "m", time.Second, 1, nil)
	for path, name := range map[string]string{dash.PathRealtime: "metrics", dash.PathHistorical: "metric"} {
		for range 2 { // the second time from the cache
			for _, partial := range []string{"true", "false"} {
				code, body := f.get(path, name, "m", "partial", partial)
				var got struct{ Warnings []string }
				if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
					t.Fatalf("%s: %d %s %v", path, code, body, err)
				}
				if want := map[string]int{"true": 1, "false": 0}[partial]; len(got.Warnings) != want || strings.Contains(body, "warnings") != (want > 0) {
					t.Errorf("%s partial=%s: got %s", path, partial, body)
				}
			}
		}
	}
	// PromQL's own are told as well.
	f.add(t, "mixed", 70*time.Minute, 1, nil)
	f.add(t, "mixed", 65*time.Minute, 0, &histogram.Histogram{Count: 1, Sum: 1, ZeroThreshold: 0.001, ZeroCount: 1})
	if _, body := f.get(dash.PathHistorical, "metric", "mixed", "agg", "rate"); !strings.Contains(body, `"warnings":["`) {
		t.Errorf("got %s", body)
	}
}
