package alerts

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	evaluations, failures, dropped prometheus.Counter
	subscriptions                  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "strandline_alert_subscription_" + name, Help: help})
	}
	m := &metrics{
		evaluations: counter("evaluations_total", "Evaluations of subscribed alerts."),
		failures:    counter("evaluation_failures_total", "Evaluations that failed."),
		dropped:     counter("messages_dropped_total", "Messages that went because a subscription's queue was full."),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{Name: "strandline_alert_subscriptions",
			Help: "Subscriptions that this node evaluates."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.evaluations, m.failures, m.dropped, m.subscriptions} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
