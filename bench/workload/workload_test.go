package workload

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

func quickFleet(t *testing.T) (string, Info) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bodies")
	info, err := Fleet(path, FleetOptions{Series: 1200, Scrapes: 5, PerRequest: 200, End: time.Unix(1_700_000_000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	return path, info
}

func TestFleetIsDeterministic(t *testing.T) {
	a, _ := quickFleet(t)
	b, _ := quickFleet(t)
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Fatal("the same seed gave different bodies")
	}
}

func TestFleetShape(t *testing.T) {
	path, info := quickFleet(t)
	if info.Samples != 6000 || info.Series != 1200 || info.Bodies != 30 {
		t.Fatalf("got %+v", info)
	}
	f, err := Open(path, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last := map[string]prompb.Sample{}
	lane := map[string]int{}
	for l := range 4 {
		for _, b := range f.Lane(l) {
			for _, ts := range decode(t, f, b).Timeseries {
				key := checkLabels(t, ts.Labels)
				prev, seen := last[key]
				if seen && ts.Samples[0].Timestamp-prev.Timestamp != 10_000 {
					t.Fatalf("%s: %d after %d", key, ts.Samples[0].Timestamp, prev.Timestamp)
				}
				if seen && lane[key] != l {
					t.Fatalf("%s is in lanes %d and %d", key, lane[key], l)
				}
				last[key], lane[key] = ts.Samples[0], l
			}
		}
	}
	if len(last) != 1200 {
		t.Fatalf("%d distinct series, want 1200", len(last))
	}
}

// checkLabels wants 7 to 9 sorted labels and returns them as one string.
func checkLabels(t *testing.T, ls []prompb.Label) string {
	t.Helper()
	if len(ls) < 7 || len(ls) > 9 {
		t.Fatalf("%d labels: %v", len(ls), ls)
	}
	var key string
	for i, l := range ls {
		if i > 0 && ls[i-1].Name >= l.Name {
			t.Fatalf("labels out of order: %v", ls)
		}
		key += l.Name + "=" + l.Value + ","
	}
	return key
}

func decode(t *testing.T, f *File, b Body) *prompb.WriteRequest {
	t.Helper()
	body, err := f.Read(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		t.Fatal(err)
	}
	var req prompb.WriteRequest
	if err := req.Unmarshal(raw); err != nil {
		t.Fatal(err)
	}
	if len(req.Timeseries) != b.Samples {
		t.Fatalf("%d series in a body of %d samples", len(req.Timeseries), b.Samples)
	}
	return &req
}
