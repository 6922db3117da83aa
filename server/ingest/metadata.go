package ingest

import (
	"fmt"
	"strings"

	"github.com/strandline-db/strandline/shard/model"
)

// metadataType is the name of a type's number, which is the same in both protocols.
func metadataType(n uint64) string {
	switch n {
	case 1:
		return "counter"
	case 2:
		return "gauge"
	case 3:
		return "histogram"
	case 4:
		return "gaugehistogram"
	case 5:
		return "summary"
	case 6:
		return "info"
	case 7:
		return "stateset"
	}
	return "unknown"
}

// metadataV1 reads a MetricMetadata message.
func (d *decoder) metadataV1(b []byte) error {
	if err := d.spend(costMetadata); err != nil {
		return err
	}
	m := model.Metadata{Type: metadataType(0)}
	f := fields{b: b}
	for f.next() {
		switch {
		case f.num == 1 && f.is(typeVarint):
			m.Type = metadataType(f.v)
		case f.num == 2 && f.is(typeBytes):
			m.Metric = view(f.data)
		case f.num == 4 && f.is(typeBytes):
			m.Help = view(f.data)
		case f.num == 5 && f.is(typeBytes):
			m.Unit = view(f.data)
		}
	}
	if f.bad {
		return fmt.Errorf("%w: metadata", ErrMalformed)
	}
	if m.Metric != "" {
		d.batch.Metadata = append(d.batch.Metadata, m)
	}
	return nil
}

// metaRef is metadata of a 2.0 request, told apart by references.
type metaRef struct {
	name, help, unit uint32
	typ              uint64
}

// familyName is the name under which Prometheus keeps the metadata of a metric:
// the parts of histograms and summaries share their family's.
func familyName(metric, typ string) string {
	switch typ {
	case "histogram", "gaugehistogram":
		for _, suffix := range []string{"_bucket", "_count", "_sum", "_gcount", "_gsum"} {
			if name, ok := strings.CutSuffix(metric, suffix); ok && name != "" {
				return name
			}
		}
	case "summary":
		for _, suffix := range []string{"_count", "_sum"} {
			if name, ok := strings.CutSuffix(metric, suffix); ok && name != "" {
				return name
			}
		}
	}
	return metric
}
