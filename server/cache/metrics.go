package cache

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what became of requests.
type metrics struct {
	hits, misses, shared, bypassed atomic.Uint64
	evicted                        prometheus.Counter
}

func newMetrics(c *Cache) (*metrics, error) {
	fixed := prometheus.Labels{"cache": c.o.Name}
	m := &metrics{evicted: prometheus.NewCounter(prometheus.CounterOpts{Name: "strandline_answer_cache_evictions_total", ConstLabels: fixed,
		Help: "Answers dropped before their time, for want of room."})}
	if c.o.Registerer == nil {
		return m, nil
	}
	errs := []error{c.o.Registerer.Register(m.evicted)}
	for result, n := range map[string]*atomic.Uint64{"hit": &m.hits, "miss": &m.misses, "shared": &m.shared, "bypass": &m.bypassed} {
		errs = append(errs, c.o.Registerer.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "strandline_answer_cache_requests_total", ConstLabels: prometheus.Labels{"cache": c.o.Name, "result": result},
			Help: "Requests answered from the cache (hit), by a computation that another began (shared), or by one of their own (miss, bypass).",
		}, func() float64 { return float64(n.Load()) })))
	}
	for _, g := range []struct {
		name, help string
		f          func() float64
	}{
		{"entries", "Answers kept.", func() float64 { n, _ := c.usage(); return float64(n) }},
		{"bytes", "Size of the answers kept.", func() float64 { _, n := c.usage(); return float64(n) }},
		{"hit_ratio", "Part of all requests since the start that needed no computation of their own.", m.hitRatio},
	} {
		errs = append(errs, c.o.Registerer.Register(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "strandline_answer_cache_" + g.name, Help: g.help, ConstLabels: fixed}, g.f)))
	}
	return m, errors.Join(errs...)
}

// hitRatio is 0 before the first request.
func (m *metrics) hitRatio() float64 {
	spared := m.hits.Load() + m.shared.Load()
	return float64(spared) / float64(max(1, spared+m.misses.Load()+m.bypassed.Load()))
}
