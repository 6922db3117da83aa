package cluster

import "github.com/prometheus/client_golang/prometheus"

// metrics are a node's own figures.
type metrics struct {
	repairs, fetched, worked prometheus.Counter
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		repairs: counter("strandline_cluster_repairs_total", "Damaged blocks and shards that were brought back from another replica."),
		fetched: counter("strandline_cluster_fetched_bytes_total", "Bytes of blocks fetched from other replicas."),
		worked:  counter("strandline_cluster_fragments_total", "Aggregations that were worked out here for other nodes."),
	}
}

func (m *metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.repairs, m.fetched, m.worked}
}

// register makes the figures visible; unregister ends that.
func (m *metrics) register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	for _, c := range m.all() {
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
	for _, c := range m.all() {
		r.Unregister(c)
	}
}
