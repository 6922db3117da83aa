package workload

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/golang/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/strandline-db/strandline/shard/model"
)

// FleetOptions shape a synthetic fleet; zero values mean the defaults.
type FleetOptions struct {
	Series     int           // series in all; default 100,000
	Scrapes    int           // samples a series; default 180
	Interval   time.Duration // between samples of a series; default 10 s
	PerRequest int           // samples a request; default 2,000
	Lanes      int           // connections; default 4
	Senders    int           // that scrape by turns, each told by its label __replica__; default none
	Seed       uint64        // default 1
	End        time.Time     // the last sample's time; default now, rounded down to Interval
}

// perHost is the number of series that one host exports.
const perHost = 500

// EnsureDefaults fills in what is not set.
func (o *FleetOptions) EnsureDefaults() {
	setDefault(&o.Series, 100_000)
	setDefault(&o.Scrapes, 180)
	setDefault(&o.Interval, 10*time.Second)
	setDefault(&o.PerRequest, 2000)
	setDefault(&o.Lanes, 4)
	setDefault(&o.Seed, 1)
	if o.End.IsZero() {
		o.End = time.Now().Truncate(o.Interval)
	}
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Fleet writes the bodies of a synthetic fleet to path. The same options give the same bytes.
func Fleet(path string, o FleetOptions) (Info, error) {
	o.EnsureDefaults()
	w, err := Create(path)
	if err != nil {
		return Info{}, err
	}
	all := fleetSeries(o.Series, o.Seed)
	w.info.Name = "fleet"
	w.info.Series, w.info.Names = len(all), familyNames()
	w.info.End = o.End.UnixMilli()
	w.info.Start = w.info.End - int64(o.Scrapes-1)*o.Interval.Milliseconds()
	replicas, err := senders(all, o.Senders)
	if err != nil {
		return Info{}, errors.Join(err, w.Close())
	}
	var raw, comp []byte
	for i := range o.Scrapes {
		ts := w.info.Start + int64(i)*o.Interval.Milliseconds()
		for from, n := 0, 0; from < len(all); from, n = from+o.PerRequest, n+1 {
			part := all[from:min(from+o.PerRequest, len(all))]
			raw = raw[:0]
			for j := range part {
				raw = appendSeries(raw, replicas[i%len(replicas)][from+j], part[j].step(), ts)
			}
			comp = snappy.Encode(comp[:cap(comp)], raw)
			if err := w.Add(n%o.Lanes, len(part), comp); err != nil {
				return Info{}, fmt.Errorf("write %s: %w", path, err)
			}
		}
	}
	return w.info, w.Close()
}

// senders returns, for each sender, all series' labels as it sends them.
func senders(all []series, n int) ([][][]byte, error) {
	out := make([][][]byte, max(1, n))
	for k := range out {
		for i := range all {
			key := all[i].labels
			if n > 0 {
				var err error
				if key, err = model.CanonicalKey(nil, appendLabel(slices.Clone(key), "__replica__", fmt.Sprintf("r%d", k))); err != nil {
					return nil, err
				}
			}
			out[k] = append(out[k], key)
		}
	}
	return out, nil
}

// appendSeries appends one timeseries field with one sample, of prometheus.WriteRequest.
func appendSeries(dst, labels []byte, value float64, ts int64) []byte {
	sample := 1 + 8 + 1 + protowire.SizeVarint(uint64(ts))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(len(labels)+1+protowire.SizeVarint(uint64(sample))+sample))
	dst = append(dst, labels...)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sample))
	dst = protowire.AppendTag(dst, 1, protowire.Fixed64Type)
	dst = protowire.AppendFixed64(dst, math.Float64bits(value))
	dst = protowire.AppendTag(dst, 2, protowire.VarintType)
	return protowire.AppendVarint(dst, uint64(ts))
}

// appendLabel appends one labels field of prometheus.TimeSeries.
func appendLabel(dst []byte, name, value string) []byte {
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(protowire.SizeBytes(len(name))+protowire.SizeBytes(len(value))+2))
	dst = protowire.AppendTag(dst, 1, protowire.BytesType)
	dst = protowire.AppendString(dst, name)
	dst = protowire.AppendTag(dst, 2, protowire.BytesType)
	return protowire.AppendString(dst, value)
}
