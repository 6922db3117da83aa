package config

import "time"

// dashboards are the settings of the endpoints for simple clients.
func dashboards() []Setting {
	return []Setting{
		{Name: "dashboard-max-metrics", Default: "100", Help: "most metrics in one request for latest values", set: count(func(c *Config) *int { return &c.DashboardMaxMetrics }, 1, 1<<16)},
		{Name: "dashboard-max-series", Default: "1000", Help: "most series of one metric at the dashboard endpoints", set: count(func(c *Config) *int { return &c.DashboardMaxSeries }, 1, 1<<24)},
		{Name: "dashboard-max-response-bytes", Default: "16MiB", Help: "largest answer of the dashboard endpoints", set: size(func(c *Config) *int64 { return &c.DashboardMaxResponseBytes }, 1024)},
		{Name: "dashboard-cache-life", Default: "100ms", Help: "how long an answer of the dashboard endpoints is given again; 0: never", set: duration(func(c *Config) *time.Duration { return &c.DashboardCacheLife }, true)},
		{Name: "dashboard-cache-bytes", Default: "16MiB", Help: "most memory for these answers", set: size(func(c *Config) *int64 { return &c.DashboardCacheBytes }, 1024)},
	}
}
