package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the package's own.
type metrics struct {
	requests  *prometheus.CounterVec
	written   *prometheus.CounterVec
	rejected  prometheus.Counter
	malformed prometheus.Counter
	wireBytes prometheus.Counter
	bodyBytes prometheus.Counter
	inFlight  prometheus.Gauge

	samples, histograms, exemplars prometheus.Counter // of written
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "strandline_ingest_" + name, Help: help})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "strandline_ingest_requests_total", Help: "Write requests answered, by protocol version and status code."}, []string{"protocol", "code"}),
		written: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "strandline_ingest_written_total", Help: "What write requests have stored, by type."}, []string{"type"}),
		rejected:  counter("rejected_series_total", "Series of write requests of which something was refused."),
		malformed: counter("malformed_requests_total", "Write requests whose body could not be decoded."),
		wireBytes: counter("compressed_bytes_total", "Bytes of write requests as received."),
		bodyBytes: counter("body_bytes_total", "Bytes of write requests after decompression."),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "strandline_ingest_requests_in_flight", Help: "Write requests in work."}),
	}
	m.samples, m.histograms, m.exemplars = m.written.WithLabelValues("sample"), m.written.WithLabelValues("histogram"), m.written.WithLabelValues("exemplar")
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.written, m.rejected, m.malformed, m.wireBytes, m.bodyBytes, m.inFlight} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
