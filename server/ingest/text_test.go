package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/stretchr/testify/require"

	"github.com/strandline-db/strandline/shard/model"
)

func TestOpenMetrics(t *testing.T) {
	const text = `# HELP http_requests Requests.
# TYPE http_requests counter
http_requests_total{code="200"} 5 1.5 # {trace_id="x"} 0.5
http_requests_total{code="200"} 6 2.5
up NaN
# EOF
`
	var got model.Batch
	require.NoError(t, ParseOpenMetrics(strings.NewReader(text), 9, func(b *model.Batch) error { got = copyBatch(b); return nil }))
	require.Len(t, got.Series, 2)
	require.Equal(t, model.AppendKey(nil, labels.FromStrings("__name__", "http_requests_total", "code", "200")), got.Series[0].Key)
	require.Equal(t, []int64{1500, 2500, 9}, got.T)
	require.Equal(t, []model.Exemplar{{T: 1500, Value: 0.5, Labels: model.AppendKeyLabel(nil, "trace_id", "x")}}, got.Exemplars)
	require.Equal(t, []model.Metadata{{Metric: "http_requests", Type: "counter", Help: "Requests."}}, got.Metadata)
	nothing := func(*model.Batch) error { return nil }
	require.ErrorIs(t, ParseOpenMetrics(strings.NewReader("up 1\n"), 0, nothing), ErrMalformed)
	require.ErrorIs(t, ParseOpenMetrics(strings.NewReader("up x\n# EOF\n"), 0, nothing), ErrMalformed)
	require.ErrorIs(t, ParseOpenMetrics(strings.NewReader("# EOF\nup 1\n"), 0, nothing), ErrMalformed)
	full := errors.New("full")
	require.ErrorIs(t, ParseOpenMetrics(strings.NewReader(text), 0, func(*model.Batch) error { return full }), full)
}

// TestOpenMetricsInPieces crosses the size of a piece several times.
func TestOpenMetricsInPieces(t *testing.T) {
	const n = 100000
	var sb strings.Builder
	for i := range n {
		fmt.Fprintf(&sb, "m{series=\"%d\"} %d %d\n", i, i, i)
	}
	sb.WriteString("# EOF\n")
	next, batches := 0, 0
	require.NoError(t, ParseOpenMetrics(strings.NewReader(sb.String()), 0, func(b *model.Batch) error {
		batches++
		for _, s := range b.Series {
			if b.T[s.From] != int64(next)*1000 || b.V[s.From] != float64(next) || string(model.KeyValue(s.Key, "series")) != fmt.Sprint(next) {
				return fmt.Errorf("series %d", next)
			}
			next++
		}
		return nil
	}))
	require.Equal(t, n, next)
	require.Greater(t, batches, 3)
}

// TestJSONLinesRoundTrip writes random series and reads them back bit for bit.
func TestJSONLinesRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	var in []randomSeries
	var text bytes.Buffer
	for i := range 200 {
		s := randomOne(r)
		s.ls = labels.NewBuilder(s.ls).Set("i", fmt.Sprint(i)).Set("odd", "a\"<\n\u2028é").Labels()
		if len(s.t)+len(s.hist) == 0 {
			s.t, s.v, s.st = []int64{1}, []float64{math.Copysign(0, -1)}, []int64{0}
		}
		in = append(in, s)
		require.NoError(t, WriteJSONLines(&text, s.ls, &model.Columns{T: s.t, V: s.v, ST: s.st, Hist: s.hist}))
	}
	n := 0
	require.NoError(t, ParseJSONLines(&text, func(b *model.Batch) error {
		for _, g := range b.Series {
			s := in[n]
			require.Equal(t, model.AppendKey(nil, s.ls), g.Key)
			require.Equal(t, s.t, append([]int64(nil), b.T[g.From:g.To]...))
			equalBits(t, s.v, b.V[g.From:g.To])
			if len(b.ST) > 0 {
				require.Equal(t, s.st, append([]int64(nil), b.ST[g.From:g.To]...))
			}
			compareHistograms(t, s.hist, b.Hist[g.HFrom:g.HTo], true)
			n++
		}
		return nil
	}))
	require.Equal(t, len(in), n)
}

func TestJSONLinesValues(t *testing.T) {
	const line = `{"metric":{"__name__":"up"},"values":[1, "2.5", null,"Infinity","-Inf","NaN:7ff0000000000002",-0],"timestamps":[1,2,3,4,5,6,7]}`
	var got model.Batch
	require.NoError(t, ParseJSONLines(strings.NewReader("\n"+line+"\n"), func(b *model.Batch) error { got = copyBatch(b); return nil }))
	equalBits(t, []float64{1, 2.5, math.NaN(), math.Inf(1), math.Inf(-1), math.Float64frombits(value.StaleNaN), math.Copysign(0, -1)}, got.V)
	for _, bad := range []string{
		`{`,
		`{"metric":{"__name__":"up"},"values":[1],"timestamps":[]}`,
		`{"metric":{"job":"up"},"values":[1],"timestamps":[1]}`,
		`{"metric":{"__name__":"up"},"values":["NaN:0"],"timestamps":[1]}`,
		`{"metric":{"__name__":"up"},"values":[true],"timestamps":[1]}`,
		`{"metric":{"__name__":"up"},"values":7,"timestamps":[1]}`,
		`{"metric":{"__name__":"up"},"values":[],"timestamps":[],"histograms":["/w=="]}`,
	} {
		require.ErrorIs(t, ParseJSONLines(strings.NewReader(bad), func(*model.Batch) error { return nil }), ErrMalformed, bad)
	}
}

// FuzzJSONLines asks that whatever can be read is written and read again the same.
func FuzzJSONLines(f *testing.F) {
	f.Add([]byte(`{"metric":{"__name__":"up"},"values":[1,"NaN:7ff0000000000002"],"timestamps":[1,2]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = ParseJSONLines(bytes.NewReader(text), func(b *model.Batch) error {
			sameThroughJSON(t, copyBatch(b))
			return nil
		})
	})
}

// sameThroughJSON writes each series as JSON lines and reads it back.
func sameThroughJSON(t *testing.T, want model.Batch) {
	t.Helper()
	for _, s := range want.Series {
		c := model.Columns{T: want.T[s.From:s.To], V: want.V[s.From:s.To]}
		if len(c.T) == 0 {
			continue
		}
		var again bytes.Buffer
		if err := WriteJSONLines(&again, model.KeyLabels(s.Key), &c); err != nil {
			t.Fatal(err)
		}
		read := 0
		if err := ParseJSONLines(&again, func(b *model.Batch) error {
			read += len(b.V)
			require.Equal(t, s.Key, b.Series[0].Key)
			equalBits(t, c.V, b.V)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if read != len(c.V) {
			t.Fatalf("%d of %d samples came back", read, len(c.V))
		}
	}
}

// FuzzOpenMetrics asks that every series of a text that can be read has labels that
// JSON lines carry, and its samples come back from there bit for bit.
func FuzzOpenMetrics(f *testing.F) {
	f.Add([]byte("# HELP http_requests Requests.\n# TYPE http_requests counter\nhttp_requests_total{code=\"200\"} 5 1.5 # {trace_id=\"x\"} 0.5\n# EOF\n"))
	f.Add([]byte("# TYPE h histogram\n# UNIT h seconds\nh_bucket{le=\"+Inf\"} 1e3 -1\nh_count NaN\n{\"a.b\",\"c d\"=\"\\\"\"} +Inf\n# EOF\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = ParseOpenMetrics(bytes.NewReader(text), 7, func(b *model.Batch) error {
			sameThroughJSON(t, copyBatch(b))
			return nil
		})
	})
}
