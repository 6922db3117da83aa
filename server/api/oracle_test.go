package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/query/querytest"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/shard/model"
)

// fixture is one store behind our handlers and behind upstream's.
type fixture struct {
	store  *querytest.Store
	api    *api.API
	client *http.Client
	oracle http.Handler
}

func newFixture(t *testing.T, opts *api.Options) *fixture {
	t.Helper()
	f := &fixture{store: querytest.New()}
	fill(t, f.store)
	e, err := query.New(f.store, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.api = api.New(f.store, e, opts)
	ln := fasthttputil.NewInmemoryListener()
	srv := &fasthttp.Server{MaxIdleWorkerDuration: 10 * time.Millisecond, Handler: func(rc *fasthttp.RequestCtx) {
		if !f.api.Handle(rc) {
			rc.NotFound()
		}
	}}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	tr := &http.Transport{DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return ln.Dial() }}
	f.client = &http.Client{Transport: tr}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := errors.Join(f.api.Close(), srv.Shutdown(), <-served); err != nil {
			t.Error(err)
		}
		if n := f.store.Open(); n != 0 {
			t.Errorf("%d selections were left open", n)
		}
	})
	f.oracle = upstream(e)
	return f
}

type noChunks struct{ *query.Queryable }

func (noChunks) ChunkQuerier(int64, int64) (storage.ChunkQuerier, error) {
	return nil, errors.New("no chunks")
}

type noTargets struct{ v1.TargetRetriever }

func (noTargets) TargetsActive() map[string][]*scrape.Target { return nil }

func upstream(e *query.Engine) http.Handler {
	a := v1.NewAPI(e.Upstream(), noChunks{e.Queryable()}, nil, e.Queryable(),
		nil, func(context.Context) v1.TargetRetriever { return noTargets{} }, nil,
		func() config.Config { return config.Config{} }, map[string]string{}, v1.GlobalURLOptions{},
		func(h http.HandlerFunc) http.HandlerFunc { return h }, nil, "", false, false, 0,
		slog.New(slog.DiscardHandler), nil, 0, 0, 0, false, nil, nil, &v1.PrometheusVersion{}, nil, nil, nil, nil, nil,
		false, nil, false, false, false, 5*time.Minute, false, false, nil, nil, v1.OpenAPIOptions{}, e.Parser(), false, 0)
	r := route.New().WithPrefix("/api/v1")
	a.Register(r)
	return r
}

// fill loads a sample every 15 s from 1000 s to 1300 s into series of all kinds.
func fill(t *testing.T, s *querytest.Store) {
	t.Helper()
	app := (&querytest.Storage{W: s}).AppenderV2(context.Background())
	add := func(ms int64, v float64, h *histogram.Histogram, ls ...string) {
		if _, err := app.Append(0, labels.FromStrings(ls...), 0, ms, v, h, nil, storage.AppendV2Options{}); err != nil {
			t.Fatal(err)
		}
	}
	h := &histogram.Histogram{Count: 12, ZeroCount: 2, ZeroThreshold: 0.001, Sum: 18.4, Schema: 1,
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 2}, {Offset: 1, Length: 2}}, PositiveBuckets: []int64{1, 1, -1, 0},
		NegativeSpans: []histogram.Span{{Offset: 0, Length: 2}}, NegativeBuckets: []int64{2, 1}}
	custom := &histogram.Histogram{Count: 5, Sum: 9, Schema: histogram.CustomBucketsSchema, CustomValues: []float64{1, 2.5, 1e30},
		PositiveSpans: []histogram.Span{{Offset: 0, Length: 3}}, PositiveBuckets: []int64{1, 1, -1}}
	for i := range int64(21) {
		ms := 1000_000 + i*15_000 + i%3
		for j, inst := range []string{"a:9090", "b:9090", "c<&>\"\\\n"} {
			add(ms, float64(i)*1.5+float64(j), nil, "__name__", "up", "instance", inst, "job", "node")
			add(ms, float64(i*i), nil, "__name__", "reqs_total", "instance", inst, "code", "200")
		}
		add(ms, math.NaN(), nil, "__name__", "odd", "k", "nan")
		add(ms, math.Inf(1), nil, "__name__", "odd", "k", "inf")
		add(ms, math.Inf(-1), nil, "__name__", "odd", "k", "ninf")
		add(ms, math.Copysign(0, -1), nil, "__name__", "odd", "k", "negzero")
		add(ms, 1e-9, nil, "__name__", "odd", "k", "tiny")
		add(ms, 1.7976931348623157e308, nil, "__name__", "odd", "k", "huge")
		add(ms, 1, nil, "__name__", "utf8 métrique", "label.with.dot", "\u2028x")
		add(ms, 0, h, "__name__", "lat")
		add(ms, 0, custom, "__name__", "nhcb")
	}
	for i := range int64(4) {
		add(-5001+i*1000, 3, nil, "__name__", "ancient")
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	b := &model.Batch{Exemplars: []model.Exemplar{
		{T: 1000_500, Value: 0.25, Labels: model.AppendKeyLabel(nil, "trace_id", "a<b")},
		{T: 1001_000, Value: math.Inf(1)},
	}, Metadata: []model.Metadata{
		{Metric: "up", Type: "gauge", Help: "is it <up>"}, {Metric: "lat", Type: "histogram", Unit: "seconds"}, {Metric: "up", Type: "counter"},
	}}
	b.Series = []model.BatchSeries{{Key: model.AppendKey(nil, labels.FromStrings("__name__", "lat")), ETo: 2}}
	if _, err := s.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

type call struct {
	method, path string
	form         string // body of a POST
}

func (c call) request(t *testing.T) *http.Request {
	t.Helper()
	req, err := http.NewRequest(c.method, "http://x/api/v1/"+c.path, strings.NewReader(c.form))
	if err != nil {
		t.Fatal(err)
	}
	if c.method == "POST" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

func (f *fixture) ours(t *testing.T, req *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// calls are the requests in which ours must equal upstream's answer byte for byte.
func calls() []call {
	var out []call
	get := func(path string, kv ...string) {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Add(kv[i], kv[i+1])
		}
		out = append(out, call{"GET", path + "?" + v.Encode(), ""})
	}
	for _, expr := range []string{
		"up", "odd", "lat", "nhcb", "1+1", `"a<b>&\u2028"`, "vector(1)", "-0", "1/0", "NaN", "1e-9", "1e300", "time()", "nosuch", "up[1m]", "lat[30s]",
		"rate(reqs_total[1m])", "sum by (job) (up)", "up offset 30s", "up @ 1100", "topk(2, up)", "sort_desc(up)", `{"utf8 métrique"}`,
		"histogram_quantile(0.9, lat)", "rate(up[1m])", "absent(nosuch)", "up == bool 3", "sum(count_values(\"v\", up))", "label_replace(up, \"x\", \"$1\", \"job\", \"(.*)\")",
		"up{", "", "up + on(job) up", "foo(", "limitk(1, up)", "sum(up) by", "max_over_time(up[1m:15s])", "quantile(2, up)", "up or lat",
	} {
		get("query", "query", expr, "time", "1200")
	}
	get("query", "query", "1+1", "time", "4")
	get("query", "query", "ancient", "time", "-3.001")
	for _, kv := range [][2]string{
		{"time", "1970-01-01T00:20:00Z"}, {"time", "x"}, {"limit", "1"}, {"limit", "-1"}, {"limit", "x"}, {"timeout", "0"}, {"timeout", "x"}, {"timeout", "1m"},
		{"lookback_delta", "1s"}, {"lookback_delta", "x"}, {"time", "9223372036854775"}, {"time", "292277025-08-18T07:12:54.999999999Z"},
	} {
		get("query", "query", "up", kv[0], kv[1])
	}
	for _, expr := range []string{"up", "odd", "lat", "nhcb", "2", "rate(reqs_total[1m])", "nosuch", "up[1m]", "up{", "lat or up", "sum(lat)", `"s"`} {
		get("query_range", "query", expr, "start", "1000", "end", "1300", "step", "15")
	}
	for _, p := range []string{
		"start=1000&end=900&step=15", "start=x&end=1300&step=15", "start=1000&end=&step=15", "start=1000&end=1300&step=0", "start=1000&end=1300&step=-1",
		"start=1000&end=1300&step=x", "start=0&end=11001&step=1", "start=0&end=11000&step=1", "start=1000&end=1300&step=1m&limit=2",
		"start=1970-01-01T00:16:40.5Z&end=1970-01-01T00:17:40Z&step=7.5s", "start=1000&end=1300&step=NaN", "start=-6&end=0&step=1",
	} {
		out = append(out, call{"GET", "query_range?query=up&" + p, ""})
	}
	for _, path := range []string{
		"labels", "labels?limit=2", "labels?limit=0", "labels?match[]=up", "labels?match[]=up&match[]=lat", "labels?match[]=nosuch", "labels?match[]={x=\"\"}", "labels?match[]=up{",
		"labels?start=2000", "labels?start=x", "labels?limit=-2", "label/job/values", "label/__name__/values", "label/__name__/values?limit=3", "label/nosuch/values",
		"label/instance/values?match[]=up&match[]=reqs_total", "label/U__label_2e_with_2e_dot/values", "label/label.with.dot/values", "label/%FF/values", "label/job/values?end=x",
		"series", "series?match[]=up", "series?match[]=up&match[]={job=\"node\"}", "series?match[]=nosuch", "series?match[]=up&limit=1", "series?match[]=up{", "series?match[]={a=\"\"}",
		"series?match[]=up&start=2000&end=3000", "series?match[]=up&end=x", "query_exemplars?query=lat", "query_exemplars?query=lat&start=1000.6&end=2000", "query_exemplars?query=nosuch", "query_exemplars?query=1",
		"query_exemplars?query=up{", "query_exemplars?query=lat&start=5&end=4", "query_exemplars?query=lat%2Blat", "format_query?query=sum(up)by(job)", "format_query?query=a<b", "format_query?query=up{",
		"parse_query?query=up{", "parse_query?query=1%2B2", "metadata?limit=x", "metadata?limit_per_metric=x", "status/flags",
	} {
		out = append(out, call{"GET", strings.ReplaceAll(path, `"`, "%22"), ""})
	}
	for _, expr := range []string{"sum without(a)(rate(up[5m] offset 1m)) / on(x) group_left(y) -lat", "(max_over_time(up[1h:5m] @ end()))", "quantile(0.9, up{a!~\"x\"})", `label_join(up,"a","b")`} {
		get("parse_query", "query", expr)
		get("format_query", "query", expr)
	}
	return append(out,
		call{"POST", "query", "query=1%2B1&time=4"}, call{"POST", "query?query=2&time=5", "query=1%2B1"}, call{"POST", "query?time=7", "query=up"}, call{"POST", "query?query=3&time=7", "query="},
		call{"POST", "query_range", "query=up&start=1000&end=1100&step=10"}, call{"POST", "labels", "match[]=up"}, call{"POST", "series?match[]=lat", "match[]=up"},
		call{"POST", "query_exemplars", "query=lat"}, call{"POST", "label/job/values", ""}, call{"POST", "metadata", ""}, call{"PUT", "query", ""}, call{"DELETE", "labels", ""}, call{"OPTIONS", "query", ""},
	)
}

// TestOracle compares with upstream's handlers: status, type and body.
func TestOracle(t *testing.T) {
	f := newFixture(t, nil)
	list := calls()
	if len(list) < 60 {
		t.Fatalf("only %d requests", len(list))
	}
	for _, c := range list {
		rec := httptest.NewRecorder()
		req := c.request(t)
		req.RequestURI = req.URL.RequestURI()
		f.oracle.ServeHTTP(rec, req)
		resp, body := f.ours(t, c.request(t))
		if resp.StatusCode != rec.Code || !bytes.Equal(body, rec.Body.Bytes()) {
			t.Errorf("%s %s %s\n ours  %d %s\n their %d %s", c.method, c.path, c.form, resp.StatusCode, body, rec.Code, rec.Body)
		}
		if ours, theirs := resp.Header.Get("Content-Type"), rec.Header().Get("Content-Type"); rec.Code != 204 && ours != theirs {
			t.Errorf("%s %s: Content-Type %q, upstream %q", c.method, c.path, ours, theirs)
		}
	}
	t.Logf("%d requests", len(list))
}

// TestStats compares the shape of the statistics, since the timings differ.
func TestStats(t *testing.T) {
	f := newFixture(t, nil)
	for _, param := range []string{"true", "all", "odd"} {
		c := call{"GET", "query?query=up&time=1200&stats=" + param, ""}
		rec := httptest.NewRecorder()
		f.oracle.ServeHTTP(rec, c.request(t))
		_, body := f.ours(t, c.request(t))
		ours, theirs := parse(t, body), parse(t, rec.Body.Bytes())
		for _, m := range []map[string]any{ours, theirs} {
			delete(m["data"].(map[string]any)["stats"].(map[string]any), "timings")
		}
		if !reflect.DeepEqual(ours, theirs) {
			t.Errorf("stats=%s\n ours  %v\n their %v", param, ours, theirs)
		}
	}
}

func parse(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return m
}
