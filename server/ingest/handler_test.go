package ingest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttputil"
	"go.uber.org/goleak"

	"github.com/strandline-db/strandline/shard/model"
)

const (
	typeV1 = "application/x-protobuf;proto=prometheus.WriteRequest"
	typeV2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

func TestMain(m *testing.M) {
	// fasthttp's clock of the Date header runs as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// serve answers over memory and returns a client.
func serve(t *testing.T, a Appender, o *Options) *http.Client {
	t.Helper()
	h, err := New(a, o)
	require.NoError(t, err)
	ln := fasthttputil.NewInmemoryListener()
	srv := &fasthttp.Server{Handler: h.Handle, CloseOnShutdown: true, MaxIdleWorkerDuration: 10 * time.Millisecond}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ln.Dial() }, DisableCompression: true}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		require.NoError(t, srv.Shutdown())
		require.NoError(t, <-done)
	})
	return &http.Client{Transport: tr}
}

type reply struct {
	code int
	text string
	head http.Header
}

func post(t *testing.T, c *http.Client, contentType, encoding string, body []byte) reply {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://strandline/api/v1/write", strings.NewReader(string(body)))
	require.NoError(t, err)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	res, err := c.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return reply{code: res.StatusCode, text: string(text), head: res.Header}
}

func simple(names ...string) []randomSeries {
	var in []randomSeries
	for _, n := range names {
		in = append(in, randomSeries{ls: labels.FromStrings("__name__", n, "job", "a"), t: []int64{1}, st: []int64{0}, v: []float64{1}})
	}
	return in
}

func TestHeadersDecide(t *testing.T) {
	c := serve(t, &store{}, nil)
	v1, v2 := snappy.Encode(nil, encodeV1(t, simple("up"))), snappy.Encode(nil, encodeV2(t, simple("up")))
	for _, tc := range []struct {
		name, contentType, encoding string
		body                        []byte
		code                        int
		written                     string // of 2.0
	}{
		{"1.0", typeV1, "snappy", v1, 204, ""},
		{"bare type is 1.0", "application/x-protobuf", "snappy", v1, 204, ""},
		{"spaces and other parameters", "application/x-protobuf; charset=utf-8; proto=prometheus.WriteRequest", "snappy", v1, 204, ""},
		{"no type, no encoding", "", "", v1, 204, ""},
		{"2.0", typeV2, "snappy", v2, 204, "1"},
		{"2.0 sent as 1.0 holds nothing", typeV1, "snappy", v2, 204, ""},
		{"1.0 sent as 2.0 holds nothing", typeV2, "snappy", v1, 204, "0"},
		{"other type", "application/json", "snappy", v1, 415, ""},
		{"other message", "application/x-protobuf;proto=some.Other", "snappy", v1, 415, ""},
		{"other encoding", typeV1, "zstd", v1, 415, ""},
		{"other encoding of 2.0", typeV2, "gzip", v2, 415, "0"},
		{"not snappy", typeV1, "snappy", []byte("\xff\xff\xff"), 400, ""},
		{"empty body", typeV1, "snappy", nil, 400, ""},
		{"empty message", typeV1, "snappy", []byte{0}, 204, ""},
		{"not protobuf", typeV2, "snappy", snappy.Encode(nil, []byte("\x0f")), 400, "0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := post(t, c, tc.contentType, tc.encoding, tc.body)
			require.Equal(t, tc.code, r.code, r.text)
			require.Equal(t, tc.written, r.head.Get(headerSamples))
			if tc.code == 204 {
				require.Empty(t, r.text)
			}
		})
	}
	res, err := c.Get("http://strandline/api/v1/write")
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, 405, res.StatusCode)
}

func TestErrorsDecide(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code int
	}{
		{"overloaded", model.ErrOverloaded, 503},
		{"read-only", model.ErrReadOnly, 503},
		{"closed", model.ErrClosed, 503},
		{"failed", model.ErrFailed, 503},
		{"deadline", context.DeadlineExceeded, 503},
		{"other", errors.New("boom"), 500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := serve(t, &store{err: tc.err}, nil)
			r := post(t, c, typeV2, "snappy", snappy.Encode(nil, encodeV2(t, simple("up"))))
			require.Equal(t, tc.code, r.code)
			require.Equal(t, tc.code == 503, r.head.Get("Retry-After") != "")
			for _, name := range []string{headerSamples, headerHistograms, headerExemplars} {
				require.Equal(t, "0", r.head.Get(name))
			}
		})
	}
}

// TestFailuresAreNotAllWarnedOf: a node that can take nothing does not fill its log.
func TestFailuresAreNotAllWarnedOf(t *testing.T) {
	var warned atomic.Int64
	count := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey {
			warned.Add(1)
		}
		return a
	}
	c := serve(t, &store{err: model.ErrReadOnly}, &Options{Logger: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: count}))})
	body := snappy.Encode(nil, encodeV1(t, simple("up")))
	for range 200 {
		require.Equal(t, 503, post(t, c, typeV1, "snappy", body).code)
	}
	if n := warned.Load(); n == 0 || n > 50 {
		t.Errorf("%d warnings of 200 failures", n)
	}
}

func TestDeadlineReachesTheStore(t *testing.T) {
	s := &store{hook: func(ctx context.Context) { <-ctx.Done() }, err: context.DeadlineExceeded}
	c := serve(t, s, &Options{RequestTimeout: time.Millisecond})
	require.Equal(t, 503, post(t, c, typeV1, "snappy", snappy.Encode(nil, encodeV1(t, simple("up")))).code)
}

func TestStoreRejects(t *testing.T) {
	c := serve(t, &store{rejected: []model.Rejection{{Series: 1, Err: model.ErrTooOld}}}, nil)
	r := post(t, c, typeV1, "snappy", snappy.Encode(nil, encodeV1(t, simple("up", "down"))))
	require.Equal(t, 400, r.code)
	require.Contains(t, r.text, `__name__="down"`)
	require.Contains(t, r.text, model.ErrTooOld.Error())
}

func TestFull(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	s := &store{hook: func(context.Context) { enter <- struct{}{}; <-leave }}
	c := serve(t, s, &Options{MaxConcurrent: 1, MaxWait: time.Millisecond, Registerer: prometheus.NewRegistry()})
	body := snappy.Encode(nil, encodeV1(t, simple("up")))
	first := make(chan int, 1)
	go func() { first <- post(t, c, typeV1, "snappy", body).code }()
	<-enter
	r := post(t, c, typeV1, "snappy", body)
	require.Equal(t, 503, r.code)
	require.NotEmpty(t, r.head.Get("Retry-After"))
	close(leave)
	require.Equal(t, 204, <-first)
}

func TestBadSeriesV1(t *testing.T) {
	broken := prompb.Histogram{Count: &prompb.Histogram_CountInt{CountInt: 1}, PositiveDeltas: []int64{1}, Timestamp: 7}
	req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{Labels: []prompb.Label{{Name: "job", Value: "x"}}, Samples: []prompb.Sample{{Value: 1, Timestamp: 1}}},
		{Labels: []prompb.Label{{Name: "__name__", Value: "h"}}, Histograms: []prompb.Histogram{broken}},
		{Labels: []prompb.Label{{Name: "A", Value: "x"}, {Name: "__name__", Value: "up"}}, Samples: []prompb.Sample{{Value: 2, Timestamp: 2}}},
		{Labels: []prompb.Label{{Name: "__name__", Value: "none"}}},
	}}
	body, err := req.Marshal()
	require.NoError(t, err)
	s := &store{}
	r := post(t, serve(t, s, nil), typeV1, "snappy", snappy.Encode(nil, body))
	require.Equal(t, 400, r.code)
	require.Contains(t, r.text, `2 of the request's series`)
	require.Contains(t, r.text, `{job="x"}`)
	require.Len(t, s.got.Series, 1)
	require.Equal(t, []int64{2}, s.got.T)
}

// TestRefusedTwice: a series counts once, whatever of it is refused, here and by the storage.
func TestRefusedTwice(t *testing.T) {
	broken := func(at int64) prompb.Histogram {
		return prompb.Histogram{Count: &prompb.Histogram_CountInt{CountInt: 1}, PositiveDeltas: []int64{1}, Timestamp: at}
	}
	sample := []prompb.Sample{{Value: 1, Timestamp: 1}}
	req := prompb.WriteRequest{Timeseries: []prompb.TimeSeries{
		{Labels: []prompb.Label{{Name: "__name__", Value: "a"}}, Samples: sample},
		{Labels: []prompb.Label{{Name: "__name__", Value: "gone"}}, Histograms: []prompb.Histogram{broken(5), broken(6)}},
		{Labels: []prompb.Label{{Name: "__name__", Value: "b"}}, Samples: sample, Histograms: []prompb.Histogram{broken(7), broken(8)}},
		{Labels: []prompb.Label{{Name: "__name__", Value: "c"}}, Samples: sample},
	}}
	v1, err := req.Marshal()
	require.NoError(t, err)
	w := writev2.Request{Symbols: []string{"", "__name__", "a", "gone", "b", "c"}}
	for i := range req.Timeseries {
		ts := writev2.TimeSeries{LabelsRefs: []uint32{1, uint32(i + 2)}}
		for range req.Timeseries[i].Samples {
			ts.Samples = append(ts.Samples, writev2.Sample{Value: 1, Timestamp: 1})
		}
		for _, h := range req.Timeseries[i].Histograms {
			ts.Histograms = append(ts.Histograms, writev2.Histogram{Count: &writev2.Histogram_CountInt{CountInt: 1}, PositiveDeltas: []int64{1}, Timestamp: h.Timestamp})
			ts.Exemplars = []writev2.Exemplar{{LabelsRefs: []uint32{99, 99}}}
		}
		w.Timeseries = append(w.Timeseries, ts)
	}
	v2, err := w.Marshal()
	require.NoError(t, err)
	for typ, body := range map[string][]byte{typeV1: v1, typeV2: v2} {
		s := &store{rejected: []model.Rejection{{Series: 1, Err: model.ErrTooOld}, {Series: 2, Err: model.ErrTooOld}}} // b and c
		r := post(t, serve(t, s, nil), typ, "snappy", snappy.Encode(nil, body))
		require.Equal(t, 400, r.code)
		require.Len(t, s.got.Series, 3)
		require.Contains(t, r.text, `: 3 of the request's series`)
	}
}

func TestBadSeriesV2(t *testing.T) {
	sample := []writev2.Sample{{Value: 1, Timestamp: 1, StartTimestamp: 5}}
	for _, tc := range []struct {
		name string
		ts   writev2.TimeSeries
	}{
		{"odd references", writev2.TimeSeries{LabelsRefs: []uint32{1, 2, 3}, Samples: sample}},
		{"reference beyond the table", writev2.TimeSeries{LabelsRefs: []uint32{1, 99}, Samples: sample}},
		{"no name", writev2.TimeSeries{LabelsRefs: []uint32{3, 2}, Samples: sample}},
		{"empty name", writev2.TimeSeries{LabelsRefs: []uint32{1, 0}, Samples: sample}},
		{"nothing in it", writev2.TimeSeries{LabelsRefs: []uint32{1, 2}}},
		{"help beyond the table", writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: sample, Metadata: writev2.Metadata{HelpRef: 50}}},
		{"exemplar beyond the table", writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Exemplars: []writev2.Exemplar{{LabelsRefs: []uint32{8, 9}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := writev2.TimeSeries{LabelsRefs: []uint32{1, 2}, Samples: []writev2.Sample{{Value: 3, Timestamp: 4}}}
			req := writev2.Request{Symbols: []string{"", "__name__", "up", "job"}, Timeseries: []writev2.TimeSeries{tc.ts, good}}
			body, err := req.Marshal()
			require.NoError(t, err)
			s := &store{}
			r := post(t, serve(t, s, nil), typeV2, "snappy", snappy.Encode(nil, body))
			require.Equal(t, 400, r.code, r.text)
			require.Equal(t, "1", r.head.Get(headerSamples))
			require.Equal(t, []int64{4}, s.got.T)
			require.Len(t, s.got.Series, 1)
		})
	}
	bad := writev2.Request{Symbols: []string{"x"}}
	body, err := bad.Marshal()
	require.NoError(t, err)
	require.Equal(t, 400, post(t, serve(t, &store{}, nil), typeV2, "snappy", snappy.Encode(nil, body)).code)
}

func TestOptions(t *testing.T) {
	_, err := New(nil, nil)
	require.ErrorIs(t, err, ErrBadOptions)
	_, err = New(&store{}, &Options{MaxBodyBytes: -1, MaxConcurrent: -1})
	require.ErrorIs(t, err, ErrBadOptions)
	require.ErrorContains(t, err, "MaxConcurrent")
}
