package cluster

import "github.com/prometheus/client_golang/prometheus"

// metrics are a node's own figures.
type metrics struct {
	repairs, fetched prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		repairs: counter("strandline_cluster_repairs_total", "Damaged blocks and shards that were brought back from another replica."),
		fetched: counter("strandline_cluster_fetched_bytes_total", "Bytes of blocks fetched from other replicas."),
	}
}

// register makes the figures visible; unregister ends that.
func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range []prometheus.Collector{m.repairs, m.fetched} {
		if err := r.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	if r == nil {
		return
	}
	r.Unregister(m.repairs)
	r.Unregister(m.fetched)
}
