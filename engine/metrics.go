package engine

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector turns the engine's figures into metrics when they are asked for.
type collector struct {
	db    *DB
	descs []*prometheus.Desc
}

// figure is one exported number.
type figure struct {
	name, help string
	kind       prometheus.ValueType
	of         func(*Stats) float64
}

func figures() []figure {
	c, g := prometheus.CounterValue, prometheus.GaugeValue
	return []figure{
		{"strandline_samples_applied_total", "Float samples applied, duplicates included.", c, func(s *Stats) float64 { return float64(s.Samples) }},
		{"strandline_histograms_applied_total", "Native histogram samples applied.", c, func(s *Stats) float64 { return float64(s.Histograms) }},
		{"strandline_exemplars_applied_total", "Exemplars applied.", c, func(s *Stats) float64 { return float64(s.Counts.Exemplars) }},
		{"strandline_samples_duplicate_total", "Samples that were there already with the same bits.", c, func(s *Stats) float64 { return float64(s.Duplicates) }},
		{"strandline_samples_overwritten_total", "Samples that replaced another value at their timestamp, counted when memory shows it, else when their blocks are merged.", c, func(s *Stats) float64 { return float64(s.Overwritten) }},
		{"strandline_samples_too_old_total", "Samples dropped because they lie before the retention.", c, func(s *Stats) float64 { return float64(s.TooOld) }},
		{"strandline_pair_merge_dropped_samples_total", "Samples of a pair of senders that merges of blocks dropped because the other sender's were chosen.", c, func(s *Stats) float64 { return float64(s.Unchosen) }},
		{"strandline_head_series", "Series known to the head.", g, func(s *Stats) float64 { return float64(s.Series) }},
		{"strandline_head_samples", "Samples in memory, not yet in blocks.", g, func(s *Stats) float64 { return float64(s.HeadSamples) }},
		{"strandline_head_bytes", "Packed samples in memory, roughly.", g, func(s *Stats) float64 { return float64(s.HeadBytes) }},
		{"strandline_read_only", "1 while writes are refused because the disk is nearly full.", g, func(s *Stats) float64 {
			if s.ReadOnly {
				return 1
			}
			return 0
		}},
		{"strandline_feeds", "Open feeds of samples as they are stored.", g, func(s *Stats) float64 { return float64(s.Feeds) }},
		{"strandline_log_fsyncs_total", "Fsyncs of the log.", c, func(s *Stats) float64 { return float64(s.Log.Fsyncs) }},
		{"strandline_log_written_bytes_total", "Bytes written to the log.", c, func(s *Stats) float64 { return float64(s.Log.Bytes) }},
		{"strandline_log_segments", "Segments of the log on disk.", g, func(s *Stats) float64 { return float64(s.Log.Segments) }},
		{"strandline_log_damaged_total", "Times that the log was found damaged, other than at its very end, or to lack files when it was opened.", c, func(s *Stats) float64 { return float64(s.Log.Damaged) }},
		{"strandline_log_torn_tails_total", "Torn tails cut when the log was opened.", c, func(s *Stats) float64 { return float64(s.Log.TornTails) }},
	}
}

func (db *DB) registerMetrics() error {
	if db.opts.Registerer == nil {
		return nil
	}
	c := &collector{db: db}
	for _, f := range figures() {
		c.descs = append(c.descs, prometheus.NewDesc(f.name, f.help, nil, nil))
	}
	c.descs = append(c.descs,
		prometheus.NewDesc("strandline_blocks", "Blocks on disk.", []string{"tier"}, nil),
		prometheus.NewDesc("strandline_block_bytes", "Bytes of the blocks on disk.", []string{"tier"}, nil))
	if err := db.opts.Registerer.Register(c); err != nil {
		return err
	}
	db.collector = c
	return nil
}

func (db *DB) unregisterMetrics() {
	if db.collector != nil {
		db.opts.Registerer.Unregister(db.collector)
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.db.Stats()
	fs := figures()
	for i, f := range fs {
		ch <- prometheus.MustNewConstMetric(c.descs[i], f.kind, f.of(&st))
	}
	for i, tier := range []string{"hot", "warm", "cold"} {
		ch <- prometheus.MustNewConstMetric(c.descs[len(fs)], prometheus.GaugeValue, float64(st.Blocks[i]), tier)
		ch <- prometheus.MustNewConstMetric(c.descs[len(fs)+1], prometheus.GaugeValue, float64(st.BlockBytes[i]), tier)
	}
}
