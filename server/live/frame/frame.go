package frame

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// The types of frames that a server sends.
const (
	Ack       = "ack"
	Series    = "series"
	Data      = "data"
	Stale     = "stale"
	Heartbeat = "heartbeat"
	Dropped   = "dropped"
	Error     = "error"
	Drain     = "drain"
)

// The operations that a client asks for.
const (
	OpSubscribe   = "subscribe"
	OpResume      = "resume" // subscribe, with the last seen time
	OpUnsubscribe = "unsubscribe"
	OpSet         = "set"
)

// ModeSamples is the mode that passes on samples as they are stored.
const ModeSamples = "samples"

// Request is what a client sends.
type Request struct {
	Op string `json:"op"`
	Sub
	Subs []Sub `json:"subs,omitempty"` // of set: all that is wanted
}

// Sub describes a subscription; to unsubscribe, its ID alone.
type Sub struct {
	ID       string   `json:"id,omitempty"`
	Query    string   `json:"query,omitempty"`
	Step     Duration `json:"step,omitempty"`
	Mode     string   `json:"mode,omitempty"` // "" or ModeSamples
	Backfill Duration `json:"backfill,omitempty"`
	Resume   Time     `json:"resume,omitempty"`  // the last seen time; 0: none
	Seen     Time     `json:"seen,omitempty"`    // the greatest t + rev/1000 of the corrections that came; 0: none
	Applied  string   `json:"applied,omitempty"` // X-Strandline-Applied of a write that must be in
}

// Frame is what a server sends; Type says which fields are set.
type Frame struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Op   string `json:"op"`

	Query string   `json:"query"` // ack: normalised
	Step  Duration `json:"step"`
	Mode  string   `json:"mode"`

	Series []SeriesDef `json:"series"`
	T      Time        `json:"t"`
	Rev    uint32      `json:"rev"`
	V      []Value     `json:"v"`
	Stale  []uint32    `json:"stale"`

	Count int64 `json:"count"` // dropped
	From  Time  `json:"from"`
	To    Time  `json:"to"`

	Known map[string]Time `json:"known"` // heartbeat

	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
	Ended     bool   `json:"ended"`

	Reason string `json:"reason"` // drain
}

// Time is Unix milliseconds, in JSON as seconds.
type Time int64

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(t)/1000, 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	sec, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.Abs(sec) > 1e12 || math.IsNaN(sec) {
		return fmt.Errorf("%s is not a time in Unix seconds, such as 1763900000.25", b)
	}
	*t = Time(math.Round(sec * 1000))
	return nil
}

// Duration is written as "1m30s"; numbers and strings of seconds are understood too.
type Duration time.Duration

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// String returns the duration as Prometheus writes it.
func (d Duration) String() string { return model.Duration(d).String() }

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	s := string(b)
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	}
	v, err := ParseDuration(s)
	*d = v
	return err
}

// ParseDuration reads a duration such as 1m30s or a number of seconds; not negative.
func ParseDuration(s string) (Duration, error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		if !(sec >= 0 && sec < 1e9) {
			return 0, fmt.Errorf("duration %q is not between 0 and a billion seconds", s)
		}
		return Duration(math.Round(sec*1000)) * Duration(time.Millisecond), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf(`%q is no duration such as "1s" or "250ms", and no number of seconds`, s)
	}
	return Duration(d), nil
}

// SeriesDef is a pair of a number and the labels it stands for.
type SeriesDef struct {
	N      uint32
	Labels map[string]string
}

// MarshalJSON implements json.Marshaler.
func (s SeriesDef) MarshalJSON() ([]byte, error) { return json.Marshal([2]any{s.N, s.Labels}) }

// UnmarshalJSON implements json.Unmarshaler.
func (s *SeriesDef) UnmarshalJSON(b []byte) error { return pair(b, &s.N, &s.Labels) }

// Value is a pair of a series' number and its value: a string as Prometheus prints
// it, or an object for a histogram.
type Value struct {
	N   uint32
	Raw json.RawMessage
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) { return json.Marshal([2]any{v.N, v.Raw}) }

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(b []byte) error { return pair(b, &v.N, &v.Raw) }

func pair(b []byte, first, second any) error {
	var p []json.RawMessage
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	if len(p) != 2 {
		return fmt.Errorf("want a pair, got %d elements", len(p))
	}
	if err := json.Unmarshal(p[0], first); err != nil {
		return err
	}
	return json.Unmarshal(p[1], second)
}
