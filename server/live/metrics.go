package live

import (
	"github.com/prometheus/client_golang/prometheus"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
)

type metrics struct {
	conns         *prometheus.GaugeVec
	subscriptions prometheus.Gauge
	frames        map[string]prometheus.Counter // by type
	bytes         prometheus.Counter
	dropped       prometheus.Counter
	cut           *prometheus.CounterVec
	refused       *prometheus.CounterVec
	slow          prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, hub *qlive.Hub) (*metrics, error) {
	m := &metrics{
		conns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "strandline_live_connections", Help: "Connected clients, by transport."}, []string{"transport"}),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "strandline_live_client_subscriptions", Help: "Subscriptions of all connected clients."}),
		frames: map[string]prometheus.Counter{},
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "strandline_live_sent_bytes_total", Help: "Bytes sent to clients, before TLS."}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "strandline_live_dropped_steps_total", Help: "Steps, or samples, that clients were told they missed."}),
		cut: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "strandline_live_cut_clients_total", Help: "Clients cut, by reason: slow (took nothing for too long), silent (answered no ping) or revoked (its access was withdrawn)."}, []string{"reason"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "strandline_live_refused_total", Help: "Connections refused, by reason."}, []string{"reason"}),
		slow: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "strandline_live_slow_clients", Help: "Clients that are being waited for."}),
	}
	frames := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "strandline_live_frames_total", Help: "Frames sent to clients, by type."}, []string{"type"})
	for _, kind := range []string{frame.Ack, frame.Series, frame.Data, frame.Stale, frame.Heartbeat, frame.Dropped, frame.Error, frame.Drain} {
		m.frames[kind] = frames.WithLabelValues(kind)
	}
	if reg == nil {
		return m, nil
	}
	queries := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "strandline_live_queries", Help: "Distinct live queries that are evaluated, with those that nobody has followed for some seconds."},
		func() float64 { return float64(hub.Stats().Queries) })
	for _, c := range []prometheus.Collector{m.conns, m.subscriptions, queries, frames, m.bytes, m.dropped, m.cut, m.refused, m.slow} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
