package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/query"
)

// registerPairs shows what comes of choices among pairs of senders on read; what merges
// drop is the engine's to show.
func registerPairs(reg prometheus.Registerer, pairs *query.PairReader) {
	for _, c := range []struct {
		name, help string
		of         func() uint64
	}{
		{"read_dropped_samples_total", "Samples of a pair of senders that reads decoded and did not show because the other sender's were chosen, each time that they were read.", pairs.Dropped},
		{"switches_total", "Times that samples of a pair of senders, as read, went on with those of the other sender.", pairs.Switches},
	} {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "strandline_pair_" + c.name, Help: c.help},
			func() float64 { return float64(c.of()) }))
	}
}
