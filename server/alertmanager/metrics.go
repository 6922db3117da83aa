package alertmanager

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sent, errors, dropped *prometheus.CounterVec
	queue                 *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "strandline_alertmanager_" + name, Help: help}, []string{"alertmanager"})
	}
	m := &metrics{
		sent:    counter("sent_total", "Alerts sent."),
		errors:  counter("errors_total", "Alerts whose sending failed and was tried again."),
		dropped: counter("dropped_total", "Alerts that were given up: queue full, refused, or out of attempts."),
		queue: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "strandline_alertmanager_queue_length", Help: "Alerts that wait to be sent."},
			[]string{"alertmanager"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.sent, m.errors, m.dropped, m.queue} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// add shows a target's counts from the start.
func (m *metrics) add(url string) {
	for _, c := range []*prometheus.CounterVec{m.sent, m.errors, m.dropped} {
		c.WithLabelValues(url)
	}
	m.queue.WithLabelValues(url)
}
