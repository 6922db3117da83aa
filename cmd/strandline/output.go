package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// point is one row of output.
type point struct{ series, time, value string }

// result is the data of a query's answer.
type result struct {
	Type   string          `json:"resultType"`
	Result json.RawMessage `json:"result"`
}

// series is an element of a vector or a matrix.
type series struct {
	Metric     map[string]string `json:"metric"`
	Value      *sample           `json:"value"`
	Histogram  *sample           `json:"histogram"`
	Values     []sample          `json:"values"`
	Histograms []sample          `json:"histograms"`
}

// sample is a pair of Unix seconds and either a string or a histogram.
type sample struct{ time, value string }

// UnmarshalJSON implements json.Unmarshaler.
func (s *sample) UnmarshalJSON(b []byte) error {
	var pair [2]json.RawMessage
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	var sec float64
	if err := json.Unmarshal(pair[0], &sec); err != nil {
		return err
	}
	s.time = time.UnixMilli(int64(sec * 1000)).UTC().Format("2006-01-02T15:04:05.000Z")
	if json.Unmarshal(pair[1], &s.value) != nil {
		s.value = string(pair[1]) // a histogram, as the server wrote it
	}
	return nil
}

// points returns the rows of an answer, in its order.
func (a *answer) points() ([]point, error) {
	var r result
	if err := json.Unmarshal(a.Data, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if r.Type == "scalar" || r.Type == "string" {
		var s sample
		if err := json.Unmarshal(r.Result, &s); err != nil {
			return nil, fmt.Errorf("%w: %w", errAnswer, err)
		}
		return []point{{r.Type, s.time, s.value}}, nil
	}
	var list []series
	if err := json.Unmarshal(r.Result, &list); err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	var out []point
	for i := range list {
		s := &list[i]
		samples := slices.Concat(s.Values, s.Histograms)
		for _, one := range []*sample{s.Value, s.Histogram} {
			if one != nil {
				samples = append(samples, *one)
			}
		}
		name := seriesName(s.Metric)
		for _, v := range samples {
			out = append(out, point{name, v.time, v.value})
		}
	}
	return out, nil
}

// seriesName writes labels as PromQL does.
func seriesName(metric map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(metric)) {
		if k != "__name__" {
			pairs = append(pairs, fmt.Sprintf("%s=%q", k, metric[k]))
		}
	}
	name := metric["__name__"]
	if len(pairs) > 0 || name == "" {
		name += "{" + strings.Join(pairs, ", ") + "}"
	}
	return name
}

func writeTable(w io.Writer, a *answer) error {
	points, err := a.points()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SERIES\tTIME\tVALUE")
	for _, p := range points {
		fmt.Fprintf(t, "%s\t%s\t%s\n", p.series, p.time, p.value)
	}
	return t.Flush()
}

func writeCSV(w io.Writer, a *answer) error {
	points, err := a.points()
	if err != nil {
		return err
	}
	c := csv.NewWriter(w)
	rows := [][]string{{"series", "time", "value"}}
	for _, p := range points {
		rows = append(rows, []string{p.series, p.time, p.value})
	}
	return c.WriteAll(rows)
}

func writeJSON(w io.Writer, a *answer) error {
	_, err := fmt.Fprintf(w, "%s\n", a.Data)
	return err
}
