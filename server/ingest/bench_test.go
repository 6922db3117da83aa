package ingest

import (
	"fmt"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
)

// usual is what an agent sends: 2,000 series of 8 labels, one sample each.
func usual() []randomSeries {
	in := make([]randomSeries, 2000)
	for i := range in {
		in[i] = randomSeries{
			ls: labels.FromStrings("__name__", fmt.Sprintf("http_request_duration_seconds_%d", i%40), "cluster", "eu-west-1", "container", "app",
				"handler", "/api/v1/query", "instance", fmt.Sprintf("10.0.%d.%d:9090", i/250, i%250), "job", "web", "method", "GET", "status", "200"),
			t: []int64{1764000000000}, st: []int64{0}, v: []float64{float64(i) * 1.5},
		}
	}
	return in
}

func BenchmarkDecode(b *testing.B) {
	in := usual()
	for name, tc := range map[string]struct {
		body   []byte
		decode func(*decoder) error
	}{
		"v1": {encodeV1(b, in), (*decoder).decodeV1},
		"v2": {encodeV2(b, in), (*decoder).decodeV2},
	} {
		b.Run(name, func(b *testing.B) {
			d := newDecoder()
			d.body = tc.body
			b.ReportAllocs()
			for b.Loop() {
				d.reset(128 << 20)
				if err := tc.decode(d); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/sample")
		})
	}
}

func BenchmarkSnappy(b *testing.B) {
	src := snappy.Encode(nil, encodeV1(b, usual()))
	dst := make([]byte, 1<<20)
	for name, decode := range map[string]func(dst, src []byte) ([]byte, error){"golang": snappy.Decode, "s2": s2.Decode} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := decode(dst, src); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*2000), "ns/sample")
		})
	}
}
