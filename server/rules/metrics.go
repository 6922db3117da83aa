package rules

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what groups do. A nil registerer exposes nothing.
type metrics struct {
	duration                                   prometheus.Histogram
	evaluations, failures, iterations, missing *prometheus.CounterVec
	last, took, samples, interval, rules       *prometheus.GaugeVec
	leads                                      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "strandline_rule_" + name, Help: help}, []string{"rule_group"})
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "strandline_rule_" + name, Help: help}, []string{"rule_group"})
	}
	m := &metrics{
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "strandline_rule_evaluation_duration_seconds",
			Help: "Time that a rule took.", Buckets: []float64{.001, .01, .1, 1, 10}}),
		evaluations: counter("evaluations_total", "Rules evaluated."),
		failures:    counter("evaluation_failures_total", "Rules that failed."),
		iterations:  counter("group_iterations_total", "Iterations of groups, missed ones included."),
		missing:     counter("group_iterations_missed_total", "Iterations left out because those before took too long."),
		last:        gauge("group_last_evaluation_timestamp_seconds", "When the last iteration began."),
		took:        gauge("group_last_duration_seconds", "Time that the last iteration took."),
		samples:     gauge("group_last_evaluation_samples", "Samples of the last iteration."),
		interval:    gauge("group_interval_seconds", "Interval of the group."),
		rules:       gauge("group_rules", "Rules of the group."),
		leads:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "strandline_rule_evaluating", Help: "1 if this node evaluates the rules."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.duration, m.evaluations, m.failures, m.iterations, m.missing, m.last, m.took, m.samples, m.interval, m.rules, m.leads} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// add shows the group with all its counts from the start.
func (m *metrics) add(s *GroupSpec) {
	for _, c := range []*prometheus.CounterVec{m.evaluations, m.failures, m.iterations, m.missing} {
		c.WithLabelValues(s.Key())
	}
	m.interval.WithLabelValues(s.Key()).Set(s.Interval.Seconds())
	m.rules.WithLabelValues(s.Key()).Set(float64(len(s.Rules)))
}

func (m *metrics) remove(key string) {
	for _, c := range []*prometheus.CounterVec{m.evaluations, m.failures, m.iterations, m.missing} {
		c.DeleteLabelValues(key)
	}
	for _, g := range []*prometheus.GaugeVec{m.last, m.took, m.samples, m.interval, m.rules} {
		g.DeleteLabelValues(key)
	}
}

func (m *metrics) rule(key string, took time.Duration, err error) {
	m.duration.Observe(took.Seconds())
	m.evaluations.WithLabelValues(key).Inc()
	if err != nil {
		m.failures.WithLabelValues(key).Inc()
	}
}

func (m *metrics) iteration(key string, start time.Time, took time.Duration, samples int) {
	m.last.WithLabelValues(key).Set(float64(start.UnixNano()) / 1e9)
	m.took.WithLabelValues(key).Set(took.Seconds())
	m.samples.WithLabelValues(key).Set(float64(samples))
}

func (m *metrics) scheduled(key string, n int) { m.iterations.WithLabelValues(key).Add(float64(n)) }

func (m *metrics) missed(key string, n int) {
	m.missing.WithLabelValues(key).Add(float64(n))
	m.scheduled(key, n)
}
