package ingest

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/strandline-db/strandline/shard/model"
)

// randomSeries is one series in a form that both protocols can carry.
type randomSeries struct {
	ls        labels.Labels
	t, st     []int64
	v         []float64
	hist      []model.HistogramSample
	exemplars []model.Exemplar
	exLabels  []labels.Labels
}

func randomRequest(r *rand.Rand) []randomSeries {
	out := make([]randomSeries, r.IntN(20))
	for i := range out {
		out[i] = randomOne(r)
	}
	return out
}

func randomOne(r *rand.Rand) randomSeries {
	b := labels.NewScratchBuilder(8)
	b.Add("__name__", []string{"up", "http_requests_total", "é"}[r.IntN(3)])
	for j := range r.IntN(8) {
		b.Add("label_"+string(rune('a'+j)), string(make([]byte, r.IntN(2)))+randomText(r))
	}
	s := randomSeries{ls: b.Labels()}
	for range r.IntN(5) {
		s.t = append(s.t, randomTime(r))
		s.v = append(s.v, randomValue(r))
		s.st = append(s.st, int64(r.IntN(2))*randomTime(r))
	}
	for range r.IntN(3) {
		s.hist = append(s.hist, randomHistogram(r))
	}
	for range r.IntN(3) {
		ls := labels.FromStrings("trace_id", randomText(r))
		s.exLabels = append(s.exLabels, ls)
		s.exemplars = append(s.exemplars, model.Exemplar{T: randomTime(r), Value: r.NormFloat64(), Labels: model.AppendKey(nil, ls)})
	}
	if len(s.t)+len(s.hist)+len(s.exemplars) == 0 {
		s.t, s.v, s.st = []int64{1}, []float64{0}, []int64{0}
	}
	return s
}

func randomText(r *rand.Rand) string {
	b := make([]byte, 1+r.IntN(300))
	for i := range b {
		b[i] = byte('a' + r.IntN(26))
	}
	return string(b)
}

func randomTime(r *rand.Rand) int64 {
	switch r.IntN(4) {
	case 0:
		return 0
	case 1:
		return -r.Int64()
	}
	return 1700000000000 + r.Int64N(1e9)
}

func randomValue(r *rand.Rand) float64 {
	switch r.IntN(5) {
	case 0:
		return math.Float64frombits(value.StaleNaN)
	case 1:
		return math.Float64frombits(r.Uint64())
	case 2:
		return 0
	}
	return r.NormFloat64()
}

func randomHistogram(r *rand.Rand) model.HistogramSample {
	s := model.HistogramSample{T: randomTime(r), ST: int64(r.IntN(3))}
	n := r.Int64N(50)
	switch r.IntN(5) {
	case 0:
		s.H = tsdbutil.GenerateTestHistogram(n)
	case 1:
		s.FH = tsdbutil.GenerateTestFloatHistogram(n)
	case 2:
		s.H = tsdbutil.GenerateTestCustomBucketsHistogram(n)
	case 3:
		s.FH = tsdbutil.GenerateTestCustomBucketsFloatHistogram(n)
	case 4:
		s.H = &histogram.Histogram{Sum: math.Float64frombits(value.StaleNaN)}
	}
	return s
}

func encodeV1(t testing.TB, in []randomSeries) []byte {
	var req prompb.WriteRequest
	for _, s := range in {
		ts := prompb.TimeSeries{Labels: prompb.FromLabels(s.ls, nil)}
		for i := range s.t {
			ts.Samples = append(ts.Samples, prompb.Sample{Timestamp: s.t[i], Value: s.v[i]})
		}
		for _, h := range s.hist {
			if h.H != nil {
				ts.Histograms = append(ts.Histograms, prompb.FromIntHistogram(h.T, h.H))
			} else {
				ts.Histograms = append(ts.Histograms, prompb.FromFloatHistogram(h.T, h.FH))
			}
		}
		for i, e := range s.exemplars {
			ts.Exemplars = append(ts.Exemplars, prompb.Exemplar{Labels: prompb.FromLabels(s.exLabels[i], nil), Value: e.Value, Timestamp: e.T})
		}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Metadata = []prompb.MetricMetadata{{Type: prompb.MetricMetadata_COUNTER, MetricFamilyName: "http_requests_total", Help: "h", Unit: "u"}}
	b, err := req.Marshal()
	require.NoError(t, err)
	return b
}

func encodeV2(t testing.TB, in []randomSeries) []byte {
	st := writev2.NewSymbolTable()
	var req writev2.Request
	for _, s := range in {
		ts := writev2.TimeSeries{LabelsRefs: st.SymbolizeLabels(s.ls, nil)}
		for i := range s.t {
			ts.Samples = append(ts.Samples, writev2.Sample{Timestamp: s.t[i], Value: s.v[i], StartTimestamp: s.st[i]})
		}
		for _, h := range s.hist {
			if h.H != nil {
				ts.Histograms = append(ts.Histograms, writev2.FromIntHistogram(h.ST, h.T, h.H))
			} else {
				ts.Histograms = append(ts.Histograms, writev2.FromFloatHistogram(h.ST, h.T, h.FH))
			}
		}
		for i, e := range s.exemplars {
			ts.Exemplars = append(ts.Exemplars, writev2.Exemplar{LabelsRefs: st.SymbolizeLabels(s.exLabels[i], nil), Value: e.Value, Timestamp: e.T})
		}
		ts.Metadata = writev2.Metadata{Type: writev2.Metadata_METRIC_TYPE_GAUGE, HelpRef: st.Symbolize("help"), UnitRef: st.Symbolize("")}
		req.Timeseries = append(req.Timeseries, ts)
	}
	req.Symbols = st.Symbols()
	b, err := req.Marshal()
	require.NoError(t, err)
	return b
}

// TestOracle sends random requests through upstream's encoders and compares what
// comes out here, with one decoder for all, as a pool would.
func TestOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	d := newDecoder()
	for range 300 {
		in := randomRequest(r)
		require.NoError(t, decodeBody(d, protocolV1, encodeV1(t, in)))
		compare(t, in, d, false)
		require.Equal(t, []model.Metadata{{Metric: "http_requests_total", Type: "counter", Help: "h", Unit: "u"}}, d.batch.Metadata)
		require.NoError(t, decodeBody(d, protocolV2, encodeV2(t, in)))
		compare(t, in, d, true)
	}
}

func compare(t *testing.T, in []randomSeries, d *decoder, v2 bool) {
	t.Helper()
	require.Zero(t, d.bad, "%v", d.firstBad)
	b := &d.batch
	require.Len(t, b.Series, len(in))
	for i, s := range in {
		g := b.Series[i]
		require.Equal(t, model.AppendKey(nil, s.ls), g.Key)
		require.Equal(t, s.t, append([]int64(nil), b.T[g.From:g.To]...))
		equalBits(t, s.v, b.V[g.From:g.To])
		for j := range s.st {
			want := int64(0)
			if v2 {
				want = s.st[j]
			}
			got := int64(0)
			if len(b.ST) > 0 {
				require.Len(t, b.ST, len(b.T))
				got = b.ST[g.From+j]
			}
			require.Equal(t, want, got)
		}
		require.Equal(t, s.exemplars, append([]model.Exemplar(nil), b.Exemplars[g.EFrom:g.ETo]...))
		compareHistograms(t, s.hist, b.Hist[g.HFrom:g.HTo], v2)
	}
}

func compareHistograms(t *testing.T, want, got []model.HistogramSample, v2 bool) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		require.Equal(t, w.T, got[i].T)
		if v2 {
			require.Equal(t, w.ST, got[i].ST)
		}
		if w.H != nil {
			require.True(t, w.H.Equals(got[i].H), "want %v, got %v", w.H, got[i].H)
			require.Equal(t, w.H.CounterResetHint, got[i].H.CounterResetHint)
			continue
		}
		require.True(t, w.FH.Equals(got[i].FH), "want %v, got %v", w.FH, got[i].FH)
	}
}

// TestCuts cuts a body at every byte: each cut is refused or is shorter, and none
// makes trouble.
func TestCuts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	in := []randomSeries{randomOne(r), randomOne(r), randomOne(r)}
	d := newDecoder()
	for p, body := range map[protocol][]byte{protocolV1: encodeV1(t, in), protocolV2: encodeV2(t, in)} {
		for n := range body {
			err := decodeBody(d, p, body[:n])
			if p == protocolV1 {
				var req prompb.WriteRequest
				if req.Unmarshal(body[:n]) == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, ErrMalformed)
				}
				continue
			}
			var req writev2.Request
			if req.Unmarshal(body[:n]) == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, ErrMalformed)
			}
		}
	}
}
