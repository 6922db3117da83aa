package main

import (
	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/dash"
	"github.com/strandline-db/strandline/server/slo"
	"github.com/strandline-db/strandline/shard/model"
)

// newSLO returns the endpoint of the objectives.
func (n *node) newSLO(q *query.Engine) (*slo.API, error) {
	return slo.NewAPI(q, &slo.Options{Timeout: n.cfg.QueryTimeout, Registerer: n.reg})
}

// newDash returns the endpoints for simple clients.
func (n *node) newDash(r model.Reader, q *query.Engine) (*dash.Dash, error) {
	c := n.cfg
	o := &dash.Options{
		Lookback: c.QueryLookbackDelta, Timeout: c.QueryTimeout,
		MaxMetrics: c.DashboardMaxMetrics, MaxSeries: c.DashboardMaxSeries, MaxResponseBytes: int(c.DashboardMaxResponseBytes),
		CacheLife: orNegative(c.DashboardCacheLife), CacheBytes: c.DashboardCacheBytes,
		Fresh: n.api.Fresh, Ready: n.ready, Registerer: n.reg, Logger: n.log,
	}
	if n.cluster != nil {
		o.Warnings = cluster.Warnings
	}
	return dash.New(r, q, o)
}
