package chunk

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkEncode and BenchmarkDecode measure each shape of values in the chunk sizes of
// the head (32) and of a flush (240), with timestamps on an exact schedule.
func BenchmarkEncode(b *testing.B) {
	forShapes(b, func(b *testing.B, ts []int64, vs []float64) {
		var e Encoder
		var dst []byte
		for b.Loop() {
			dst = e.Floats(dst[:0], ts, vs, nil)
		}
		b.ReportMetric(float64(len(dst))/float64(len(vs)), "B/sample")
	})
}

func BenchmarkDecode(b *testing.B) {
	forShapes(b, func(b *testing.B, ts []int64, vs []float64) {
		var e Encoder
		var d Decoder
		c := e.Floats(nil, ts, vs, nil)
		outT, outV, _, err := d.Floats(c, nil, nil, nil)
		for b.Loop() && err == nil {
			outT, outV, _, err = d.Floats(c, outT[:0], outV[:0], nil)
		}
		if err != nil {
			b.Fatal(err)
		}
	})
}

func forShapes(b *testing.B, f func(b *testing.B, ts []int64, vs []float64)) {
	for _, col := range ordinaryColumns() {
		for _, n := range []int{32, 240} {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			vs, ts := col.values(r, n), times(r, 0, n)
			b.Run(fmt.Sprintf("%s/%d", col.name, n), func(b *testing.B) {
				b.ReportAllocs()
				f(b, ts, vs)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/sample")
			})
		}
	}
}

// BenchmarkTimestamps measures each manner of timestamps by itself.
func BenchmarkTimestamps(b *testing.B) {
	for manner := range manners {
		ts := times(rand.New(rand.NewPCG(1, 2)), manner, 240)
		b.Run(fmt.Sprintf("encode/%d", manner), func(b *testing.B) {
			var e Encoder
			var dst []byte
			for b.Loop() {
				dst = e.appendTimes(dst[:0], ts, nil)
			}
			b.ReportMetric(float64(len(dst))/240, "B/sample")
		})
		b.Run(fmt.Sprintf("decode/%d", manner), func(b *testing.B) {
			var e Encoder
			var d Decoder
			c := e.appendTimes(nil, ts, nil)
			var out []int64
			for b.Loop() {
				out, _ = d.Timestamps(c, out[:0])
			}
		})
	}
}
