package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/strandline-db/strandline/cluster"
)

// TestStatusAge: the age of data whose age nobody knows is not told as a number.
func TestStatusAge(t *testing.T) {
	for age, want := range map[time.Duration]string{1500 * time.Millisecond: "may be 1.500 s old\n", math.MaxInt64: "nobody knows how old its data is\n"} {
		b, err := json.Marshal(cluster.Status{Node: "n1", Cluster: "c", Staleness: age.Seconds()})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := writeStatus(&out, b); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%v: %q lacks %q", age, out.String(), want)
		}
	}
}
