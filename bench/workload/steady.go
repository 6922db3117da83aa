package workload

import (
	"fmt"
	"strconv"
	"time"

	"github.com/golang/snappy"
)

// SteadyOptions shape a steady stream: every series has a sample at every tick, so that
// whoever reads it knows what must come. All must be set.
type SteadyOptions struct {
	Series, Ticks int
	Interval      time.Duration // between ticks
	Start         time.Time     // of the first tick
	Lanes         int           // connections; series i is sent by lane i % Lanes, one body a tick
}

// SteadyNames is how many metric names a steady stream has.
const SteadyNames = 100

// SteadyGroup is how many series share name and group.
const SteadyGroup = 10

// SteadyLabels returns the labels of series i, sorted by name.
func SteadyLabels(i int) [][2]string {
	name, n := i%SteadyNames, i/SteadyNames
	return [][2]string{
		{"__name__", SteadyName(name)}, {"env", "prod"}, {"group", "g" + strconv.Itoa(n/SteadyGroup)}, {"instance", fmt.Sprintf("host-%05d.example.net:9100", n)},
		{"job", "steady"}, {"n", strconv.Itoa(n)}, {"region", []string{"eu-west-1", "us-east-1", "ap-south-1"}[n%3]}, {"team", "platform"},
	}
}

// SteadyName returns the kth metric name.
func SteadyName(k int) string { return fmt.Sprintf("steady_%02d_total", k) }

// SteadyValue is the value of series i at a tick: a counter that never resets.
func SteadyValue(i, tick int) float64 { return float64(tick*(1+i%7) + i) }

// Steady writes the bodies of a steady stream to path.
func Steady(path string, o SteadyOptions) (Info, error) {
	w, err := Create(path)
	if err != nil {
		return Info{}, err
	}
	labels := make([][]byte, o.Series)
	for i := range labels {
		for _, l := range SteadyLabels(i) {
			labels[i] = appendLabel(labels[i], l[0], l[1])
		}
	}
	w.info.Name, w.info.Series = "steady", o.Series
	w.info.Start = o.Start.UnixMilli()
	w.info.End = w.info.Start + int64(o.Ticks-1)*o.Interval.Milliseconds()
	var raw, comp []byte
	for tick := range o.Ticks {
		ts := w.info.Start + int64(tick)*o.Interval.Milliseconds()
		for lane := range o.Lanes {
			raw = raw[:0]
			n := 0
			for i := lane; i < o.Series; i += o.Lanes {
				raw = appendSeries(raw, labels[i], SteadyValue(i, tick), ts)
				n++
			}
			comp = snappy.Encode(comp[:cap(comp)], raw)
			if err := w.Add(lane, n, comp); err != nil {
				return Info{}, fmt.Errorf("write %s: %w", path, err)
			}
		}
	}
	return w.info, w.Close()
}
