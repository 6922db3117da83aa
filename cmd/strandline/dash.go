package main

import (
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/dash"
)

// newDash returns the endpoints for simple clients.
func (n *node) newDash(q *query.Engine) (*dash.Dash, error) {
	c := n.cfg
	return dash.New(n.db, q, &dash.Options{
		Lookback: c.QueryLookbackDelta, Timeout: c.QueryTimeout,
		MaxMetrics: c.DashboardMaxMetrics, MaxSeries: c.DashboardMaxSeries, MaxResponseBytes: int(c.DashboardMaxResponseBytes),
		CacheLife: orNegative(c.DashboardCacheLife), CacheBytes: c.DashboardCacheBytes,
		Fresh: n.api.Fresh, Ready: n.ready, Registerer: n.reg, Logger: n.log,
	})
}
