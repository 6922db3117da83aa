package e2e

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"testing"

	"github.com/golang/snappy"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

const (
	v1 = "application/x-protobuf;proto=prometheus.WriteRequest"
	v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
)

type hostile struct {
	name, contentType string
	body              []byte
}

func hostileBodies(t *testing.T) []hostile {
	t.Helper()
	declared := func(n uint64, rest []byte) []byte { return append(binary.AppendUvarint(nil, n), rest...) }
	ref := func(refs []uint32, symbols ...string) []byte {
		req := writev2.Request{Symbols: symbols, Timeseries: []writev2.TimeSeries{{
			LabelsRefs: refs, Samples: []writev2.Sample{{Value: 1, Timestamp: 1}}}}}
		raw, err := req.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return snappy.Encode(nil, raw)
	}
	zeros := snappy.Encode(nil, make([]byte, 256<<20))
	return []hostile{
		{"declares 4 GiB", v1, declared(1<<32-1, []byte{0, 0})},
		{"declares 31 MiB in 100 bytes", v1, declared(31<<20, make([]byte, 100))},
		{"256 MiB of zeros", v1, zeros},
		{"256 MiB of zeros as 2.0", v2, zeros},
		{"not snappy", v1, []byte("hello, this is no snappy block")},
		{"empty", v1, nil},
		{"random protobuf", v1, snappy.Encode(nil, bytes.Repeat([]byte{0xff, 0x13, 0x80}, 1000))},
		{"length past the end", v1, snappy.Encode(nil, []byte{0x0a, 0xff, 0xff, 0xff, 0x7f, 1, 2})},
		{"endless varint", v1, snappy.Encode(nil, bytes.Repeat([]byte{0xff}, 64))},
		{"cut sample", v1, snappy.Encode(nil, []byte{0x0a, 0x05, 0x12, 0x09, 0x09, 1, 2})},
		{"reference past the symbols", v2, ref([]uint32{1, 99}, "", "__name__", "a")},
		{"odd references", v2, ref([]uint32{1}, "", "__name__", "a")},
		{"no symbols", v2, ref([]uint32{1, 2})},
		{"symbol 0 is not empty", v2, ref([]uint32{1, 2}, "x", "__name__", "a")},
		{"no metric name", v2, ref([]uint32{1, 2}, "", "job", "a")},
		{"unknown message", "application/x-protobuf;proto=no.such.Message", ref([]uint32{1, 2}, "", "__name__", "a")},
		{"wrong type", "application/json", []byte("{}")},
	}
}

// TestHostileBodies is fault 17: every one is answered 4xx, and memory grows by less than 64 MiB.
func TestHostileBodies(t *testing.T) {
	for how, serve := range servers() {
		t.Run(how, func(t *testing.T) {
			s := serve(t, t.TempDir())
			l := newLedger()
			fill(t, s.base, l, 1_000_000, 10)
			before, peak := s.anon(t), int64(0)
			bodies := hostileBodies(t)
			for range 20 {
				for _, h := range bodies {
					status, text, err := post(t.Context(), http.DefaultClient, s.base, h.contentType, h.body)
					if err != nil {
						t.Fatalf("%s: %v", h.name, err)
					}
					if status/100 != 4 {
						t.Errorf("%s: status %d %s, want 4xx", h.name, status, text)
					}
					peak = max(peak, s.anon(t))
				}
			}
			if grown := peak - before; grown >= 64<<20*memoryFactor {
				t.Errorf("memory grew by %d MiB", grown>>20)
			}
			l.check(t, s.base, 1_000_000, 1_000_010)
			s.terminate(t)
		})
	}
}
