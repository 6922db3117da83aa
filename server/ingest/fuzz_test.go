package ingest

import (
	"math/rand/v2"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/strandline-db/strandline/shard/model"
)

// smallRequest has a histogram, an exemplar and samples in few bytes, which the
// fuzzer can work with.
func smallRequest(r *rand.Rand) []randomSeries {
	in := simple("up", "h")
	in[0].hist = []model.HistogramSample{randomHistogram(r)}
	in[1].exLabels = []labels.Labels{labels.FromStrings("t", "x")}
	in[1].exemplars = []model.Exemplar{{T: 1, Value: 2}}
	return in
}

// FuzzV1 asks that what upstream can read is not called malformed here, and that
// no sample of it goes missing unnoticed.
func FuzzV1(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 5 {
		f.Add(encodeV1(f, smallRequest(r)))
	}
	f.Add([]byte("\x0a\x04\x12\x02\x10\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		d := newDecoder()
		err := decodeBody(d, protocolV1, body)
		var req prompb.WriteRequest
		if req.Unmarshal(body) != nil {
			return
		}
		if err != nil {
			t.Fatalf("upstream reads it, we say %v", err)
		}
		samples := 0
		for _, ts := range req.Timeseries {
			samples += len(ts.Samples)
		}
		if samples != len(d.batch.T) && d.bad == 0 {
			t.Fatalf("want %d samples, got %d", samples, len(d.batch.T))
		}
	})
}

// FuzzV2 asks the same of 2.0; only a table without the empty symbol is refused
// here and not there.
func FuzzV2(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 5 {
		f.Add(encodeV2(f, smallRequest(r)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := newDecoder()
		err := decodeBody(d, protocolV2, body)
		var req writev2.Request
		if req.Unmarshal(body) != nil || (len(req.Symbols) > 0 && req.Symbols[0] != "") {
			return
		}
		if err != nil {
			t.Fatalf("upstream reads it, we say %v", err)
		}
		samples := 0
		for _, ts := range req.Timeseries {
			samples += len(ts.Samples)
		}
		if samples != len(d.batch.T) && d.bad == 0 {
			t.Fatalf("want %d samples, got %d", samples, len(d.batch.T))
		}
	})
}

// FuzzSnappy asks that the length guard refuses nothing that snappy can read.
func FuzzSnappy(f *testing.F) {
	f.Add(snappy.Encode(nil, make([]byte, 100000)))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, src []byte) {
		const most = 1 << 20
		n, err := decodedLen(src, most)
		if err == nil {
			_, _ = decompress(nil, src, n)
			return
		}
		if m, e := snappy.DecodedLen(src); e != nil || m > most {
			return
		}
		if _, e := snappy.Decode(nil, src); e == nil {
			t.Fatalf("snappy reads it, the guard says %v", err)
		}
	})
}
