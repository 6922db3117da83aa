package main

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/strandline-db/strandline/server/config"
)

// reloads tells how reading the settings went. Safe for concurrent use.
type reloads struct {
	mu struct {
		sync.Mutex
		inForce *config.Config
		ok      bool      // of the last attempt
		at      time.Time // of the last success
	}
}

// newReloads begins with the settings of the start, and shows the metrics that Prometheus
// has under these names after its own.
func newReloads(c *config.Config, reg prometheus.Registerer) *reloads {
	r := &reloads{}
	r.done(c)
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "strandline_config_last_reload_successful", Help: "Whether the last attempt to read the settings succeeded."},
			func() float64 {
				if ok, _ := r.last(); !ok {
					return 0
				}
				return 1
			}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "strandline_config_last_reload_success_timestamp_seconds", Help: "When the settings were last read without a fault."},
			func() float64 {
				_, at := r.last()
				return float64(at.UnixMilli()) / 1000
			}))
	return r
}

func (r *reloads) done(inForce *config.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.inForce, r.mu.ok, r.mu.at = inForce, true, time.Now()
}

func (r *reloads) failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.ok = false
}

// last tells whether the last attempt succeeded, and when one last did.
func (r *reloads) last() (ok bool, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.ok, r.mu.at
}

func (r *reloads) inForce() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.inForce
}

// reload reads the settings again and puts into force what can be without a restart.
// A fault changes nothing.
func (n *node) reload() {
	now, err := n.load()
	if err == nil {
		err = n.enforce(now)
	}
	if err != nil {
		n.reloads.failed()
		n.log.Error("config not reloaded", "err", err)
		return
	}
	n.reloads.done(n.cfg.InForce(now))
	n.log.Info("config reloaded")
	if names := n.cfg.NeedRestart(now); len(names) > 0 {
		n.log.Warn("changed settings that need a restart", "keys", names)
	}
}

// enforce puts what can be of the settings into force; with an error nothing.
func (n *node) enforce(now *config.Config) error {
	groups, err := loadRules(now)
	if err != nil {
		return err
	}
	a, err := authOf(now)
	if err != nil {
		return err
	}
	if n.cert != nil {
		if err := n.cert.Reload(); err != nil {
			return err
		}
	}
	if err := n.server.SetAuth(a); err != nil {
		return err
	}
	setLevel(&n.level, now.LogLevel)
	n.server.SetHosts(now.Hosts)
	n.groups, n.objectives, n.origins = groups, now.Objectives, now.LiveOrigins
	if n.opened {
		n.live.api.SetOrigins(n.origins)
		n.live.api.Recheck() // of those whose token or user is no more
		n.rules.manager.Set(groups)
		n.slo.Set(n.objectives)
	}
	return nil
}
