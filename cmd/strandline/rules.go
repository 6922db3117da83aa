package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/spf13/cobra"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server"
	"github.com/strandline-db/strandline/server/alertmanager"
	"github.com/strandline-db/strandline/server/alerts"
	"github.com/strandline-db/strandline/server/config"
	"github.com/strandline-db/strandline/server/rules"
	"github.com/strandline-db/strandline/server/slo"
	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/shard/model"
)

func newCheckRules() *cobra.Command {
	return &cobra.Command{
		Use:   "rules FILE...",
		Short: "Verify files of recording and alerting rules; every fault is named with its line",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var errs []error
			for _, file := range args {
				data, err := os.ReadFile(file)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				groups, err := rules.Parse(file, data, parser.NewParser(parser.Options{}), rules.Defaults{Interval: time.Minute})
				if err != nil {
					errs = append(errs, err)
					continue
				}
				n := 0
				for _, g := range groups {
					n += len(g.Rules)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %d groups, %d rules\n", file, len(groups), n)
			}
			return errors.Join(errs...)
		},
	}
}

// loadRules reads the rule files that the settings name, and adds the rules of the
// objectives.
func loadRules(c *config.Config) ([]rules.GroupSpec, error) {
	p, d := parser.NewParser(parser.Options{}), rules.Defaults{Interval: c.RuleInterval, Offset: c.RuleQueryOffset}
	groups, err := rules.Load(c.RuleFiles, p, d)
	if err != nil {
		return nil, err
	}
	own, err := slo.Groups(c.Objectives, p)
	if err != nil {
		return nil, err
	}
	more, err := rules.Specs("slo", own, p, d)
	return append(groups, more...), err
}

// ruling is what evaluates rules and tells of alerts.
type ruling struct {
	manager *rules.Manager
	api     *rules.API
	sender  *alertmanager.Sender
	alerts  *alerts.Service
	leads   *leadership // nil: a single node
	// elsewhere asks the node that evaluates the rules; nil: a single node.
	elsewhere *askLeader
}

// handler answers for the rules.
func (r *ruling) handler() server.API {
	if r.elsewhere == nil {
		return r.api
	}
	return r.elsewhere
}

// startRules begins to evaluate the rules that listen has read.
func (n *node) startRules(q *query.Engine) (r *ruling, err error) {
	r = &ruling{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	c := n.cfg
	r.sender, err = alertmanager.New(&alertmanager.Options{URLs: c.Alertmanagers, User: c.AlertmanagerUser,
		PasswordFile: c.AlertmanagerPasswordFile, Logger: n.log, Registerer: n.reg})
	if err != nil {
		return r, err
	}
	o := &rules.Options{Query: rules.EngineQuery(q, "rules"), Queryable: q.Queryable(), Appender: n.db, Store: n.db, Notifier: r.sender,
		ResendDelay: c.AlertResendDelay, OutageTolerance: c.AlertOutageTolerance, ForGracePeriod: c.AlertGracePeriod,
		Logger: n.log, Registerer: n.reg}
	if c.ExternalURL != "" {
		if o.ExternalURL, err = url.Parse(c.ExternalURL); err != nil {
			return r, err
		}
	}
	if n.cluster != nil {
		r.leads = watchLeadership(n.cluster.LeadsMetadata, 2)
		o.Leadership = r.leads.listener(0)
		o.Sync = func(ctx context.Context, w model.Applied) error {
			ctx, cancel := context.WithTimeout(ctx, c.QueryTimeout)
			defer cancel()
			_, _, err := n.cluster.Sync(ctx, cluster.Wanted{Level: cluster.Leader, Applied: w})
			return err
		}
	}
	if r.manager, err = rules.New(o); err != nil {
		return r, err
	}
	r.api = rules.NewAPI(r.manager, q.Parser(), r.sender.URLs)
	if n.cluster != nil {
		r.elsewhere = &askLeader{node: n.cluster, api: r.api, log: n.log}
		n.cluster.Answer(r.elsewhere.answer)
	}
	r.alerts, err = alerts.New(&alerts.Options{Store: n.db, Query: rules.EngineQuery(q, "alerts"), Parser: q.Parser(), Sync: o.Sync,
		Leadership: r.leads.listener(1), MaxSubscriptions: c.AlertMaxSubscriptions, Logger: n.log, Audit: n.denied, Registerer: n.reg,
		Webhook: webhook.Options{Policy: webhook.Policy{Allow: c.WebhookAllow}, Logger: n.log, Registerer: n.reg}})
	return r, err
}

func (r *ruling) close() error {
	var errs []error
	if r.alerts != nil {
		errs = append(errs, r.alerts.Close())
	}
	if r.manager != nil {
		errs = append(errs, r.manager.Close())
	}
	if r.sender != nil {
		errs = append(errs, r.sender.Close())
	}
	if r.leads != nil {
		r.leads.close()
	}
	return errors.Join(errs...)
}

// leadEvery is how often a node looks whether it leads the metadata group.
const leadEvery = 500 * time.Millisecond

// leadership tells whether this node leads the metadata group, and so evaluates rules. All
// who ask are told what the watch saw last, so that whoever has been told of a change
// and asks then misses none: what it is told in between, by the group itself, might be past
// again, or be told to somebody else.
type leadership struct {
	leads   func() bool
	saw     atomic.Bool
	changed []chan struct{} // one for each that listens
	cancel  context.CancelFunc
	done    chan struct{}
}

// watchLeadership watches for n listeners.
func watchLeadership(leads func() bool, n int) *leadership {
	ctx, cancel := context.WithCancel(context.Background())
	l := &leadership{leads: leads, cancel: cancel, done: make(chan struct{})}
	for range n {
		l.changed = append(l.changed, make(chan struct{}, 1))
	}
	go l.watch(ctx)
	return l
}

func (l *leadership) watch(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(leadEvery)
	defer tick.Stop()
	for {
		if now := l.leads(); l.saw.Swap(now) != now {
			for _, ch := range l.changed {
				select {
				case ch <- struct{}{}:
				default:
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *leadership) close() { l.cancel(); <-l.done }

// listener returns what the nth listener asks; nil: a single node.
func (l *leadership) listener(n int) rules.Leadership {
	if l == nil {
		return nil
	}
	return listener{l, n}
}

type listener struct {
	*leadership
	n int
}

// Leads implements rules.Leadership.
func (l listener) Leads() bool { return l.saw.Load() }

// Changed implements rules.Leadership.
func (l listener) Changed() <-chan struct{} { return l.changed[l.n] }
