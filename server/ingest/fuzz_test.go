package ingest

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"google.golang.org/protobuf/encoding/protowire"

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

// FuzzV1 asks that what upstream can read is not called malformed here, unless a packed
// field overruns, and that no sample of it goes missing unnoticed.
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
			if overruns(body, "", packedV1) {
				return
			}
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
			if overruns(body, "", packedV2) {
				return
			}
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

// packedV1 and packedV2 say where the messages (m) lie that have packed doubles (d) and
// varints (v), by their field numbers from the request on.
var (
	packedV1 = map[string]byte{".1": 'm', ".1.4": 'm', ".1.4.9": 'v', ".1.4.10": 'd', ".1.4.12": 'v', ".1.4.13": 'd', ".1.4.16": 'd'}
	packedV2 = map[string]byte{".5": 'm', ".5.1": 'v', ".5.3": 'm', ".5.3.9": 'v', ".5.3.10": 'd', ".5.3.12": 'v', ".5.3.13": 'd', ".5.3.16": 'd',
		".5.4": 'm', ".5.4.1": 'v'}
)

// overruns tells whether a packed field ends inside one of its elements. Upstream's
// generated code then reads on into what follows, which the format does not allow.
func overruns(b []byte, path string, packed map[string]byte) bool {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		size := protowire.ConsumeFieldValue(num, typ, b[n:])
		if size < 0 {
			return false
		}
		if typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b[n:])
			if overrunsField(v, path+"."+strconv.Itoa(int(num)), packed) {
				return true
			}
		}
		b = b[n+size:]
	}
	return false
}

func overrunsField(v []byte, path string, packed map[string]byte) bool {
	switch packed[path] {
	case 'm':
		return overruns(v, path, packed)
	case 'd':
		return len(v)%8 != 0
	case 'v':
		for len(v) > 0 {
			_, n := protowire.ConsumeVarint(v)
			if n < 0 {
				return true
			}
			v = v[n:]
		}
	}
	return false
}

// TestOverrun: the body by which the fuzzer found the difference is refused here.
func TestOverrun(t *testing.T) {
	body := []byte("\ns\n\x0e\n\b__name__\x12\x0200\n\b\n\x03000\x12\x0102\v00000000000\"Jx0900000000 i0\x00Z\x02\x10\x02Z\x0400\x10\x02b\x040000\x82\x01!0000000000000000000000000000000000000000")
	if err := decodeBody(newDecoder(), protocolV1, body); !errors.Is(err, ErrMalformed) {
		t.Fatalf("got %v, want it refused", err)
	}
	if !overruns(body, "", packedV1) {
		t.Fatal("its packed field is not seen to end inside an element")
	}
	if good := encodeV1(t, smallRequest(rand.New(rand.NewPCG(5, 6)))); overruns(good, "", packedV1) {
		t.Fatal("a good body is taken for one that overruns")
	}
}
