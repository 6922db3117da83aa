package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// line is a series in JSON lines, the form of export and import. Labels include
// __name__, timestamps are in milliseconds.
type line struct {
	Metric     map[string]string `json:"metric"`
	Values     []value           `json:"values"`
	Timestamps []int64           `json:"timestamps"`
}

// value is a float64 that survives JSON bit for bit: a number, or the string
// "NaN", "+Inf", "-Inf", or, for any other NaN such as a stale marker, its bits in hex.
type value float64

// MarshalJSON implements json.Marshaler.
func (v value) MarshalJSON() ([]byte, error) {
	f := float64(v)
	switch {
	case math.IsInf(f, 0):
		return strconv.AppendQuote(nil, strconv.FormatFloat(f, 'g', -1, 64)), nil
	case math.IsNaN(f) && math.Float64bits(f) == math.Float64bits(math.NaN()):
		return []byte(`"NaN"`), nil
	case math.IsNaN(f):
		return fmt.Appendf(nil, `"%#016x"`, math.Float64bits(f)), nil
	}
	return strconv.AppendFloat(nil, f, 'g', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *value) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		bits, err := strconv.ParseUint(hex, 16, 64)
		*v = value(math.Float64frombits(bits))
		return err
	}
	f, err := strconv.ParseFloat(s, 64)
	*v = value(f)
	return err
}

// parseLine reads one line.
func parseLine(b []byte) (l line, err error) {
	if err := json.Unmarshal(b, &l); err != nil {
		return l, err
	}
	switch {
	case len(l.Metric) == 0:
		return l, errors.New("metric is missing")
	case len(l.Values) != len(l.Timestamps):
		return l, fmt.Errorf("%d values, but %d timestamps", len(l.Values), len(l.Timestamps))
	}
	return l, nil
}
