package ingest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/strandline-db/strandline/shard/model"
)

// jsonLine is one line: samples of one series.
//
//	{"metric":{"__name__":"up"},"values":[1,"NaN:7ff0000000000002"],"timestamps":[1000,2000]}
//
// metric, values and timestamps (milliseconds) are as VictoriaMetrics exports and
// imports them. A finite value is the shortest decimal that reads back as the same
// bits; infinities are "Infinity" and "-Infinity"; a NaN is "NaN" when it has the
// bits of Go's math.NaN, else "NaN:" and its 64 bits in hexadecimal, so that stale
// markers survive. null, which VictoriaMetrics writes for any NaN, is read as "NaN".
//
// Two fields are ours, and absent where they would be empty: start_timestamps beside
// timestamps (0: none), and histograms, of which each is a Histogram message of
// remote-write 2.0 in base64, its timestamps included.
type jsonLine struct {
	Metric     map[string]string `json:"metric"`
	Values     jsonValues        `json:"values"`
	Timestamps []int64           `json:"timestamps"`
	Starts     []int64           `json:"start_timestamps,omitempty"`
	Histograms [][]byte          `json:"histograms,omitempty"`
}

// jsonValues are values as jsonLine describes them.
type jsonValues []float64

// MarshalJSON writes the values so that they read back bit for bit.
func (vs jsonValues) MarshalJSON() ([]byte, error) {
	b := append(make([]byte, 0, 2+8*len(vs)), '[')
	for i, v := range vs {
		if i > 0 {
			b = append(b, ',')
		}
		switch bits := math.Float64bits(v); {
		case math.IsInf(v, 1):
			b = append(b, `"Infinity"`...)
		case math.IsInf(v, -1):
			b = append(b, `"-Infinity"`...)
		case bits == math.Float64bits(math.NaN()):
			b = append(b, `"NaN"`...)
		case v != v:
			b = fmt.Appendf(b, `"NaN:%016x"`, bits)
		default:
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		}
	}
	return append(b, ']'), nil
}

// UnmarshalJSON reads what MarshalJSON writes, and numbers in strings.
func (vs *jsonValues) UnmarshalJSON(b []byte) error {
	*vs = (*vs)[:0]
	b = bytes.TrimSpace(b)
	if string(b) == "null" {
		return nil
	}
	if len(b) < 2 || b[0] != '[' {
		return fmt.Errorf("%w: values must be a list", ErrMalformed)
	}
	b = bytes.TrimSpace(b[1 : len(b)-1])
	for more := len(b) > 0; more; {
		var item []byte
		item, b, more = bytes.Cut(b, []byte{','})
		bits, err := parseValue(string(bytes.Trim(bytes.TrimSpace(item), `"`)))
		if err != nil {
			return err
		}
		*vs = append(*vs, math.Float64frombits(bits))
	}
	return nil
}

// parseValue returns a value's bits.
func parseValue(s string) (uint64, error) {
	switch s {
	case "null", "NaN":
		return math.Float64bits(math.NaN()), nil
	}
	if len(s) > 4 && s[:4] == "NaN:" {
		bits, err := strconv.ParseUint(s[4:], 16, 64)
		if v := math.Float64frombits(bits); err != nil || v == v {
			return 0, fmt.Errorf("%w: value %q is not a NaN", ErrMalformed, s)
		}
		return bits, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: value: %w", ErrMalformed, err)
	}
	return math.Float64bits(v), nil
}

// WriteJSONLines writes the samples of one series as a line; nothing if there are
// none. Reading the line with ParseJSONLines gives the same samples bit for bit.
func WriteJSONLines(w io.Writer, ls labels.Labels, c *model.Columns) error {
	if len(c.T) == 0 && len(c.Hist) == 0 {
		return nil
	}
	line := jsonLine{Metric: ls.Map(), Values: c.V, Timestamps: c.T, Starts: c.ST}
	if line.Timestamps == nil {
		line.Timestamps = []int64{}
	}
	for i := range c.Hist {
		h := &c.Hist[i]
		var m writev2.Histogram
		if h.H != nil {
			m = writev2.FromIntHistogram(h.ST, h.T, h.H)
		} else {
			m = writev2.FromFloatHistogram(h.ST, h.T, h.FH)
		}
		b, err := m.Marshal()
		if err != nil {
			return fmt.Errorf("histogram at %d: %w", h.T, err)
		}
		line.Histograms = append(line.Histograms, b)
	}
	b, err := json.Marshal(&line)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// ParseJSONLines reads lines as WriteJSONLines and VictoriaMetrics write them and
// hands the samples to emit batch by batch; a batch is valid until emit returns.
// Empty lines are passed over. It fails with ErrMalformed, naming the line, on the
// first bad one, when earlier batches have been emitted. An error of emit ends it
// and is returned.
func ParseJSONLines(r io.Reader, emit func(*model.Batch) error) error {
	out := newTextBatch(emit)
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for no := 1; lines.Scan(); no++ {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var line jsonLine
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("line %d: %w: %w", no, ErrMalformed, err)
		}
		if err := line.addTo(out); err != nil {
			return fmt.Errorf("line %d: %w", no, err)
		}
	}
	if err := scanError(lines.Err()); err != nil {
		return err
	}
	return out.flush()
}

func (l *jsonLine) addTo(out *textBatch) error {
	if len(l.Values) != len(l.Timestamps) || (len(l.Starts) > 0 && len(l.Starts) != len(l.Timestamps)) {
		return fmt.Errorf("%w: %d values, %d timestamps, %d start timestamps", ErrMalformed, len(l.Values), len(l.Timestamps), len(l.Starts))
	}
	if l.Metric[metricName] == "" {
		return fmt.Errorf("%w: the metric name is missing", ErrMalformed)
	}
	if len(l.Values) == 0 && len(l.Histograms) == 0 {
		return nil
	}
	out.begin(labels.FromMap(l.Metric))
	d := out.d
	for i, t := range l.Timestamps {
		st := int64(0)
		if len(l.Starts) > 0 {
			st = l.Starts[i]
		}
		d.add(t, math.Float64bits(l.Values[i]), st)
	}
	for _, b := range l.Histograms {
		d.budget = costHistogram + 8*len(b)
		if err := d.histogram(b, true); err != nil {
			return err
		}
		if err := validate(&d.batch.Hist[len(d.batch.Hist)-1]); err != nil {
			return fmt.Errorf("%w: histogram: %w", ErrMalformed, err)
		}
	}
	return out.end()
}
