package workload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/prometheus/prompb"
)

// SetOptions say how a recorded set is multiplied; zero values mean the defaults.
type SetOptions struct {
	Hosts int       // copies under other instance labels; default 10
	Lanes int       // connections; default 4
	End   time.Time // where the last sample goes; default now
}

// EnsureDefaults fills in what is not set.
func (o *SetOptions) EnsureDefaults() {
	setDefault(&o.Hosts, 10)
	setDefault(&o.Lanes, 4)
	if o.End.IsZero() {
		o.End = time.Now()
	}
}

// Set writes the bodies of the recorded set at src to path: each recorded request once for each host, with
// "host-N/" before the instance label, shifted so that the last sample is at End. The recording is
// zstd over records of: length uint32, samples uint32 (little-endian), snappy remote-write 1.0 body.
func Set(path, src string, o SetOptions) (Info, error) {
	o.EnsureDefaults()
	last, err := lastTimestamp(src)
	if err != nil {
		return Info{}, err
	}
	w, err := Create(path)
	if err != nil {
		return Info{}, err
	}
	m := multiplier{SetOptions: o, w: w, shift: o.End.UnixMilli() - last, names: map[string]bool{}, series: map[string]struct{}{}}
	w.info.Name, w.info.Start = "set", o.End.UnixMilli()
	if err := eachRecord(src, m.add); err != nil {
		return Info{}, errors.Join(err, w.Close())
	}
	w.info.End = o.End.UnixMilli()
	w.info.Series = len(m.series) * o.Hosts
	w.info.Names = slices.Sorted(maps.Keys(m.names))
	return w.info, w.Close()
}

type multiplier struct {
	SetOptions
	w         *Writer
	shift     int64
	names     map[string]bool
	series    map[string]struct{}
	raw, comp []byte
}

// add writes one recorded request once a host.
func (m *multiplier) add(req *prompb.WriteRequest) error {
	original := make([]string, len(req.Timeseries))
	samples := 0
	for i := range req.Timeseries {
		ts := &req.Timeseries[i]
		var key strings.Builder
		for _, l := range ts.Labels {
			key.WriteString(l.Name + "\xff" + l.Value + "\xff")
			switch l.Name {
			case "instance":
				original[i] = l.Value
			case "__name__":
				m.names[l.Value] = true
			}
		}
		m.series[key.String()] = struct{}{}
		samples += len(ts.Samples)
		for j := range ts.Samples {
			ts.Samples[j].Timestamp += m.shift
			m.w.info.Start = min(m.w.info.Start, ts.Samples[j].Timestamp)
		}
	}
	for h := range m.Hosts {
		for i := range req.Timeseries {
			for j := range req.Timeseries[i].Labels {
				if l := &req.Timeseries[i].Labels[j]; l.Name == "instance" {
					l.Value = fmt.Sprintf("host-%d/%s", h, original[i])
				}
			}
		}
		var err error
		if m.raw, err = req.Marshal(); err != nil {
			return err
		}
		m.comp = snappy.Encode(m.comp[:cap(m.comp)], m.raw)
		if err := m.w.Add(h%m.Lanes, samples, m.comp); err != nil {
			return err
		}
	}
	return nil
}

func lastTimestamp(src string) (int64, error) {
	var last int64
	err := eachRecord(src, func(req *prompb.WriteRequest) error {
		for _, ts := range req.Timeseries {
			for _, s := range ts.Samples {
				last = max(last, s.Timestamp)
			}
		}
		return nil
	})
	return last, err
}

// eachRecord decodes a recorded set and calls fn with each request, which fn may change.
func eachRecord(src string, fn func(*prompb.WriteRequest) error) error {
	f, err := os.Open(src)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	var h [8]byte
	for {
		if _, err := io.ReadFull(z, h[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFormat, src, err)
		}
		size := binary.LittleEndian.Uint32(h[:])
		if size > maxBody {
			return fmt.Errorf("%w: %s: a body of %d bytes", ErrFormat, src, size)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(z, body); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFormat, src, err)
		}
		raw, err := snappy.Decode(nil, body)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFormat, src, err)
		}
		var req prompb.WriteRequest
		if err := req.Unmarshal(raw); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrFormat, src, err)
		}
		if err := fn(&req); err != nil {
			return err
		}
	}
}
