package ingest

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/golang/snappy"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

// allocated is how many bytes f takes from the heap.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestDeclaredLength(t *testing.T) {
	h, err := New(&store{}, &Options{MaxBodyBytes: 1 << 20})
	require.NoError(t, err)
	for _, tc := range []struct {
		name string
		body []byte
		want error
	}{
		{"more than allowed", append(binary.AppendUvarint(nil, 1<<31), 0), ErrTooLarge},
		{"more than can be", append(binary.AppendUvarint(nil, 1<<19), 0, 0), ErrMalformed},
		{"no length", bytes.Repeat([]byte{0xff}, 12), ErrMalformed},
		{"honest but too large", snappy.Encode(nil, make([]byte, 1<<21)), ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			took := allocated(func() {
				_, err := h.write(protocolV1, tc.body)
				require.ErrorIs(t, err, tc.want)
			})
			require.Less(t, took, uint64(256<<10))
		})
	}
}

// TestUnfolding sends small bodies of which each byte becomes much in memory.
func TestUnfolding(t *testing.T) {
	const most = 1 << 20
	h, err := New(&store{}, &Options{MaxBodyBytes: most})
	require.NoError(t, err)
	inSeries := func(field string) []byte {
		b := bytes.Repeat([]byte(field), 500000)
		return append(binary.AppendUvarint([]byte{0x0a}, uint64(len(b))), b...)
	}
	big := writev2.Request{Symbols: []string{"", string(make([]byte, 1<<19))}, Timeseries: []writev2.TimeSeries{{LabelsRefs: make([]uint32, 100000)}}}
	for i := range big.Timeseries[0].LabelsRefs {
		big.Timeseries[0].LabelsRefs[i] = 1
	}
	refs, err := big.Marshal()
	require.NoError(t, err)
	for _, tc := range []struct {
		name string
		p    protocol
		body []byte
	}{
		{"empty samples", protocolV1, inSeries("\x12\x00")},
		{"empty exemplars", protocolV1, inSeries("\x1a\x00")},
		{"empty histograms", protocolV1, inSeries("\x22\x00")},
		{"empty metadata", protocolV1, bytes.Repeat([]byte("\x1a\x00"), 500000)},
		{"empty symbols", protocolV2, bytes.Repeat([]byte("\x22\x00"), 500000)},
		{"one long symbol for every label", protocolV2, refs},
	} {
		t.Run(tc.name, func(t *testing.T) {
			took := allocated(func() {
				_, err := h.write(tc.p, snappy.Encode(nil, tc.body))
				require.ErrorIs(t, err, ErrTooLarge)
			})
			require.Less(t, took, uint64(40*most)) // growing slices cost several times what they end with
		})
	}
}
