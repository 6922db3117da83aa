package webhook

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	delivered, failed prometheus.Counter
	dropped           *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		delivered: prometheus.NewCounter(prometheus.CounterOpts{Name: "strandline_webhook_delivered_total", Help: "Messages that a target has taken."}),
		failed:    prometheus.NewCounter(prometheus.CounterOpts{Name: "strandline_webhook_failed_attempts_total", Help: "Attempts that failed; each is repeated."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "strandline_webhook_dropped_total",
			Help: "Messages given up: too old, unreadable, or of a subscription that is no more."}, []string{"reason"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.delivered, m.failed, m.dropped} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
