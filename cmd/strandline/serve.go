package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/server/auth"
	"github.com/strandline-db/strandline/server/config"
	"github.com/strandline-db/strandline/server/dash"
	"github.com/strandline-db/strandline/server/ingest"
	"github.com/strandline-db/strandline/server/rules"
	"github.com/strandline-db/strandline/server/slo"
	"github.com/strandline-db/strandline/shard/model"
)

// drainTime is how long running requests may take to end once we are told to stop.
const drainTime = 10 * time.Second

// readyEvery is how often a node that has started looks whether it is ready.
const readyEvery = 100 * time.Millisecond

func newServe() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server until SIGTERM; SIGHUP reloads the config",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer signal.Stop(signals)
			n := &node{load: settingsOf(cmd, &file), out: cmd.ErrOrStderr()}
			return n.run(signals)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "YAML file of settings; flags go before it")
	addSettingFlags(cmd)
	return cmd
}

// node is a running server: what it is made of, in the order of its start.
type node struct {
	load func() (*config.Config, error)
	out  io.Writer // of the log

	cfg    *config.Config
	level  slog.LevelVar
	log    *slog.Logger
	audit  io.Closer // nil: the log
	denied *slog.Logger
	cert   *server.Certificate
	reg    *prometheus.Registry
	server *server.Server
	addr   string

	waits      atomic.Pointer[string] // for what the start does; see cluster.Options.OnWait
	cluster    *cluster.Node          // nil: a single node
	db         *engine.DB
	api        *api.API
	ingest     *ingest.Handler
	dash       *dash.Dash
	slo        *slo.API
	groups     []rules.GroupSpec // of the rule files and objectives
	objectives []slo.Objective
	origins    []string // of pages that may open live queries
	opened     bool
	stopping   atomic.Bool
	reloads    *reloads
	rules      *ruling
	live       *living
	stopScrape func()
	failed     chan error
	served     chan error
}

// run starts everything, waits for a reason to stop, and stops.
func (n *node) run(signals <-chan os.Signal) error {
	if err := n.listen(); err != nil {
		return err
	}
	if n.audit != nil {
		defer n.audit.Close()
	}
	opened := make(chan error, 1)
	go func() { opened <- n.open() }()
	var look <-chan time.Time
	for {
		select {
		case err := <-opened:
			if err != nil {
				return errors.Join(err, n.shutdown())
			}
			opened = nil
			n.opened = true
			n.rules.manager.Set(n.groups)
			n.slo.Set(n.objectives)
			n.live.api.SetOrigins(n.origins)
			n.server.Mount(n.ingest, n.api, n.rules.handler(), n.rules.alerts, n.dash, n.slo, n.live.api)
			if err := n.ready(); err != nil {
				n.log.Info("started; not ready yet", "err", err)
			}
			look = n.tellReady()
		case <-look:
			look = n.tellReady()
		case err := <-n.served:
			return err
		case err := <-n.failed:
			// What is in memory is in the log; a disk that failed is not asked for more.
			n.log.Error("stopping", "err", err)
			return errors.Join(fmt.Errorf("%w: %w", errStorage, err), n.shutdown())
		case s := <-signals:
			if s == syscall.SIGHUP {
				n.reload()
				continue
			}
			n.stopping.Store(true)
			n.log.Info("stopping", "signal", s.String())
			if opened != nil { // still replaying: nothing was written that a flush could save
				return n.shutdown()
			}
			return n.stopUnlessForced(signals)
		}
	}
}

func (n *node) stopUnlessForced(signals <-chan os.Signal) error {
	done := make(chan error, 1)
	go func() { done <- n.stop() }()
	for {
		select {
		case err := <-done:
			return err
		case s := <-signals:
			if s != syscall.SIGHUP {
				return errForced
			}
		}
	}
}

// listen reads the settings and opens the listener, which says 503 for now.
func (n *node) listen() (err error) {
	if n.cfg, err = n.load(); err != nil {
		return err
	}
	if n.groups, err = loadRules(n.cfg); err != nil {
		return err
	}
	n.objectives, n.origins = n.cfg.Objectives, n.cfg.LiveOrigins
	setLevel(&n.level, n.cfg.LogLevel)
	n.log = slog.New(slog.NewTextHandler(n.out, &slog.HandlerOptions{Level: &n.level}))
	n.failed, n.served = make(chan error, 1), make(chan error, 1)
	n.reg = prometheus.NewRegistry()
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.reloads = newReloads(n.cfg, n.reg)
	if err := n.newServer(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", n.cfg.Listen)
	if err != nil {
		return err
	}
	if err := n.server.Permit(ln.Addr()); err != nil {
		return errors.Join(err, ln.Close())
	}
	n.addr = ln.Addr().String()
	n.log.Info("listening", "addr", n.addr, "version", version, "data", n.cfg.Data)
	go func() { n.served <- n.server.Serve(ln) }()
	return nil
}

func (n *node) newServer() error {
	o := &server.Options{
		Insecure: n.cfg.Insecure, Hosts: n.cfg.Hosts, Registerer: n.reg, Logger: n.log, Audit: n.log.With("log", "audit"),
		MaxBody: int(n.cfg.MaxBodyBytes), MaxConns: connectionsWithin(n.cfg.MaxConnections, maxOpenFiles()), Ready: n.ready, Waits: n.waitsFor,
		Metrics: fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{EnableOpenMetrics: true})),
	}
	if o.MaxConns < n.cfg.MaxConnections {
		n.log.Warn("fewer connections than max-connections are taken: the storage needs the other half of the files that the system lets this process open",
			"connections", o.MaxConns, "open_files", maxOpenFiles())
	}
	var err error
	if o.Auth, err = authOf(n.cfg); err != nil {
		return err
	}
	if n.cfg.TLSCert != "" {
		if n.cert, err = server.LoadCertificate(n.cfg.TLSCert, n.cfg.TLSKey, n.log, nil); err != nil {
			return err
		}
		o.TLS = n.cert.TLS()
	}
	if n.cfg.AuditLog != "" {
		f, err := os.OpenFile(n.cfg.AuditLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		n.audit, o.Audit = f, slog.New(slog.NewJSONHandler(f, nil))
	}
	n.denied = o.Audit
	n.server, err = server.New(o)
	return err
}

// open opens the storage, which replays the log, and what stands on it.
func (n *node) open() error {
	if n.cfg.ClusterNode == "" {
		if err := refuseClusterFolder(n.cfg.Data); err != nil {
			return err
		}
	}
	db, err := engine.Open(n.cfg.Data, engineOptions(n))
	if err != nil {
		return err
	}
	reader := model.Reader(db)
	if n.cluster != nil {
		reader = n.cluster.Reader()
	}
	if n.cfg.ReplicaLabel != "" {
		pairs := query.NewPairReader(reader, n.cfg.ReplicaLabel)
		registerPairs(n.reg, pairs)
		reader = pairs
	}
	q, err := query.New(reader, &query.Options{
		Timeout: n.cfg.QueryTimeout, MaxSamples: n.cfg.QueryMaxSamples, MaxSeries: n.cfg.QueryMaxSeries,
		MaxConcurrent: n.cfg.QueryMaxConcurrent, LookbackDelta: n.cfg.QueryLookbackDelta, Logger: n.log,
	})
	if err != nil {
		return errors.Join(err, db.Close())
	}
	if n.cluster != nil {
		n.cluster.Work(q.Fragment)
	}
	n.ingest, err = ingest.New(db, ingestOptions(n))
	if err != nil {
		return errors.Join(err, db.Close())
	}
	n.db, n.api = db, api.New(reader, q, apiOptions(n))
	if n.slo, err = n.newSLO(q); err != nil {
		return errors.Join(err, db.Close())
	}
	if n.dash, err = n.newDash(reader, q); err != nil {
		return errors.Join(err, db.Close())
	}
	if n.rules, err = n.startRules(q); err != nil {
		return errors.Join(err, db.Close())
	}
	if n.live, err = n.startLive(q); err != nil {
		return errors.Join(err, n.rules.close(), db.Close())
	}
	n.stopScrape = n.startScrape()
	return nil
}

// tellReady logs that the node is ready once it is; until then it returns when to look again.
func (n *node) tellReady() <-chan time.Time {
	if n.ready() != nil {
		return time.After(readyEvery)
	}
	n.log.Info("ready", "addr", n.addr)
	return nil
}

// ready tells why a node that has started should get no traffic.
func (n *node) ready() error {
	if n.stopping.Load() {
		return errStopping
	}
	if n.cluster == nil {
		return nil
	}
	return n.cluster.Ready()
}

// waitsFor tells what the start waits for.
func (n *node) waitsFor() string {
	if why := n.waits.Load(); why != nil {
		return *why
	}
	return ""
}

// connectionsWithin leaves half of the files that may be open to the storage, which stops when
// it can't open one. 0 files: it is not known how many.
func connectionsWithin(wanted int, files uint64) int {
	if files == 0 {
		return wanted
	}
	return int(min(uint64(wanted), max(1, files/2)))
}

func authOf(c *config.Config) (*auth.Authenticator, error) {
	if len(c.Users)+len(c.Tokens) == 0 {
		return nil, nil
	}
	return auth.New(&auth.Options{Users: c.Users, Tokens: c.Tokens})
}

// startScrape begins to store our own metrics; the result ends that and waits.
func (n *node) startScrape() func() {
	if n.cfg.SelfScrapeInterval == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	s := &server.SelfScrape{Gatherer: n.reg, Appender: n.db, Interval: n.cfg.SelfScrapeInterval, Instance: n.addr, Logger: n.log}
	go func() { defer close(done); s.Run(ctx) }()
	return func() { cancel(); <-done }
}

// shutdown closes the listener and lets running requests end.
func (n *node) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	n.server.Unmount()
	if err := n.server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// stop ends everything in the reverse order of its start, with all flushed.
func (n *node) stop() error {
	n.stopScrape()
	if n.cluster != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTime)
		n.cluster.Drain(ctx)
		cancel()
	}
	err := errors.Join(n.live.close(), n.rules.close(), n.shutdown())
	start := time.Now()
	err = errors.Join(err, n.api.Close(), n.dash.Close(), n.slo.Close(), n.lastFlush(), n.db.Close())
	if err == nil {
		n.log.Info("stopped", "flush_took", time.Since(start))
	}
	return err
}

// lastFlush saves the next start its replay; without a majority, which a node that
// stops with its cluster may lack, the log is enough.
func (n *node) lastFlush() error {
	err := n.db.Flush(context.Background())
	if n.cluster != nil && errors.Is(err, model.ErrUnavailable) {
		n.log.Info("stopping without a flush", "err", err)
		return nil
	}
	return err
}
