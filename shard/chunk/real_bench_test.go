package chunk

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"
)

// BenchmarkRecorded encodes a recording of remote-write requests in chunks of 240
// samples and reports what the samples take. The recording is named by the environment
// (STRANDLINE_REALSET): after zstd, one record a request, each a little-endian uint32 with the
// body's length, a uint32 with its samples, and the snappy-compressed 1.0 body.
func BenchmarkRecorded(b *testing.B) {
	path := os.Getenv("STRANDLINE_REALSET")
	if path == "" {
		b.Skip("STRANDLINE_REALSET names no recording")
	}
	series, err := readRecording(path)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{32, 120, 240, 960} {
		b.Run(fmt.Sprintf("chunk=%d", size), func(b *testing.B) { benchmarkRecorded(b, series, size) })
	}
}

type recorded struct {
	ts []int64
	vs []float64
}

func benchmarkRecorded(b *testing.B, series []*recorded, size int) {
	var e Encoder
	var chunks [][]byte
	samples := 0
	for range b.N {
		chunks, samples = chunks[:0], 0
		for _, s := range series {
			for i := 0; i < len(s.ts); i += size {
				j := min(i+size, len(s.ts))
				if len(chunks) < cap(chunks) {
					chunks = chunks[:len(chunks)+1]
				} else {
					chunks = append(chunks, nil)
				}
				last := &chunks[len(chunks)-1]
				*last = e.Floats((*last)[:0], s.ts[i:j], s.vs[i:j], nil)
				samples += j - i
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
	report(b, chunks, samples)
}

// report says what share each encoding took.
func report(b *testing.B, chunks [][]byte, samples int) {
	var d Decoder
	count, bytes := map[string]int{}, map[string]int{}
	total := 0
	for _, c := range chunks {
		s, err := d.Describe(Floats, c)
		if err != nil {
			b.Fatal(err)
		}
		total += len(c)
		for _, col := range [...]ColumnSummary{{"timestamps " + s.Times.Encoding, s.Times.Bytes}, s.Values} {
			name, _, _ := strings.Cut(col.Encoding, "/")
			count[name]++
			bytes[name] += col.Bytes
		}
	}
	b.ReportMetric(float64(total)/float64(samples), "B/sample")
	for _, name := range slices.Sorted(maps.Keys(count)) {
		b.Logf("%-20s %6.2f %% of chunks, %.4f B/sample", name, 100*float64(count[name])/float64(len(chunks)),
			float64(bytes[name])/float64(samples))
	}
}

func readRecording(path string) ([]*recorded, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var out []*recorded
	byLabels := map[string]*recorded{}
	for {
		var head [8]byte
		if _, err := io.ReadFull(z, head[:]); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		body := make([]byte, binary.LittleEndian.Uint32(head[:]))
		if _, err := io.ReadFull(z, body); err != nil {
			return nil, err
		}
		if body, err = snappy.Decode(nil, body); err != nil {
			return nil, err
		}
		var req prompb.WriteRequest
		if err := req.Unmarshal(body); err != nil {
			return nil, err
		}
		for _, ts := range req.Timeseries {
			key := fmt.Sprint(ts.Labels)
			s := byLabels[key]
			if s == nil {
				s = &recorded{}
				byLabels[key], out = s, append(out, s)
			}
			for _, p := range ts.Samples {
				s.ts, s.vs = append(s.ts, p.Timestamp), append(s.vs, p.Value)
			}
		}
	}
}
