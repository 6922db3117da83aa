package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/server/config"
	"github.com/strandline-db/strandline/server/ingest"
	"github.com/strandline-db/strandline/wal/vfs"
)

// addSettingFlags gives the command a flag for every setting that may have one.
func addSettingFlags(cmd *cobra.Command) {
	for _, s := range config.Settings() {
		if s.FileOnly {
			continue
		}
		help := strings.ReplaceAll(s.Help, "`", "'") // between backquotes pflag sees the name of a value
		if s.List {
			cmd.Flags().Var(&listFlag{text: s.Default}, s.Name, help)
			continue
		}
		cmd.Flags().String(s.Name, s.Default, help)
		if s.Switch {
			cmd.Flags().Lookup(s.Name).NoOptDefVal = "true"
		}
	}
}

// listFlag is a flag of values separated by commas. Given again, it adds to them: that the last
// one alone counts would leave out rules, or networks, without a word.
type listFlag struct {
	text  string
	given bool
}

var _ pflag.Value = (*listFlag)(nil)

// String implements pflag.Value.
func (f *listFlag) String() string { return f.text }

// Set implements pflag.Value; it never fails.
func (f *listFlag) Set(s string) error {
	if f.given {
		s = f.text + "," + s
	}
	f.text, f.given = s, true
	return nil
}

// Type implements pflag.Value.
func (f *listFlag) Type() string { return "string" }

// settingsOf returns how to read the settings, now and at each reload.
func settingsOf(cmd *cobra.Command, file *string) func() (*config.Config, error) {
	return func() (*config.Config, error) {
		flags := map[string]string{}
		cmd.Flags().Visit(func(f *pflag.Flag) { flags[f.Name] = f.Value.String() })
		var data []byte
		if *file != "" {
			var err error
			if data, err = os.ReadFile(*file); err != nil {
				return nil, err
			}
		}
		c, err := config.Load(data, flags)
		if err != nil && *file != "" {
			err = fmt.Errorf("%s: %w", *file, err)
		}
		return c, err
	}
}

func setLevel(v *slog.LevelVar, level string) {
	switch level {
	case "debug":
		v.Set(slog.LevelDebug)
	case "warn":
		v.Set(slog.LevelWarn)
	case "error":
		v.Set(slog.LevelError)
	default:
		v.Set(slog.LevelInfo)
	}
}

// orNegative turns our "0: no limit" into the engine's negative number.
func orNegative[T int | int64 | time.Duration](v T) T {
	if v == 0 {
		return -1
	}
	return v
}

func engineOptions(n *node) *engine.Options {
	c := n.cfg
	o := &engine.Options{
		Logger: n.log, Registerer: n.reg,
		Shards: c.Shards, PairLabel: c.ReplicaLabel, Retention: orNegative(c.Retention), RetentionBytes: c.RetentionBytes,
		WarmAfter: c.WarmAfter, ColdAfter: c.ColdAfter, WarmDir: c.WarmDir, ColdDir: c.ColdDir,
		FlushInterval: c.FlushInterval, HeadBytes: c.HeadBytes, MaxSeries: orNegative(c.MaxSeries),
		ScrubRate: c.ScrubRate, MaxFuture: c.MaxFuture, MinFreeBytes: orNegative(c.MinFreeBytes),
		OnFailure: func(err error) { n.failed <- err },
		Replicate: replicate(n),
	}
	armFailpoint(o)
	return o
}

// replicate returns how to make the engine part of a cluster; nil for a single node.
func replicate(n *node) func(*engine.Replicas) (engine.Committer, error) {
	c := n.cfg
	if c.ClusterNode == "" {
		return nil
	}
	return func(r *engine.Replicas) (engine.Committer, error) {
		o, err := clusterOptions(c)
		if err != nil {
			return nil, err
		}
		o.HTTP, o.Logger, o.Registerer = n.addr, n.log, n.reg
		o.OnWait = func(why string) { n.waits.Store(&why) }
		n.cluster, err = cluster.Start(context.Background(), o, r)
		return n.cluster, err
	}
}

// clusterOptions returns what the settings say of the cluster, or every fault in it.
func clusterOptions(c *config.Config) (*cluster.Options, error) {
	o := &cluster.Options{Name: c.ClusterNode, Listen: c.ClusterListen, Advertise: c.ClusterAdvertise, Join: c.ClusterJoin,
		Dir: c.Data, Heartbeat: c.ClusterHeartbeat, CommitTimeout: c.ClusterCommitTimeout, FetchRate: c.ClusterFetchRate}
	var err error
	if c.ClusterPeers != "" {
		if o.Peers, err = cluster.ParsePeers(c.ClusterPeers); err != nil {
			return nil, err
		}
	}
	if o.Listen == "" {
		o.Listen = o.Peers[o.Name]
	}
	o.EnsureDefaults()
	owned, err := cluster.OwnsFolder(vfs.OS{}, c.Data)
	if err == nil && !owned {
		err = o.MayForm()
	}
	if err := errors.Join(o.Validate(), err); err != nil {
		return nil, err
	}
	switch {
	case c.ClusterTLSCert != "":
		o.Network, err = cluster.MutualTLS(cluster.TCP{}, c.ClusterTLSCert, c.ClusterTLSKey, c.ClusterTLSCA)
	case !c.Insecure && !loopback(o.Listen):
		err = fmt.Errorf("cluster-listen %s: %w", o.Listen, errOpenCluster)
	}
	return o, err
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func apiOptions(n *node) *api.Options {
	o := &api.Options{
		MaxResponseBytes: int(n.cfg.QueryMaxResponseBytes),
		Version:          api.BuildInfo{Version: version, GoVersion: runtime.Version()},
		Config:           func() string { return n.reloads.inForce().YAML() },
		Flags:            func() map[string]string { return n.reloads.inForce().Values() },
		Reloads:          n.reloads.last,
		Consistency:      n.cfg.Consistency,
	}
	if n.cfg.BackupDir != "" {
		o.Backup = n.backup
	}
	if c := n.cluster; c != nil {
		o.Cluster = func() any { return c.Status(context.Background()) }
		o.Hashes = func(ctx context.Context) (any, error) { return c.Hashes(ctx) }
		o.Administer = func(ctx context.Context, what string, param func(string) string) (any, error) {
			return administer(ctx, c, what, param)
		}
		o.Sync = func(ctx context.Context, w api.Freshness) (context.Context, time.Duration, error) {
			level, err := cluster.ParseLevel(w.Level)
			if err != nil {
				return ctx, 0, err
			}
			ctx, age, err := c.Sync(ctx, cluster.Wanted{Level: level, MaxStaleness: w.MaxStaleness, Applied: w.Applied, Partial: w.Partial, Metadata: w.Metadata})
			return ctx, age, foreign(err)
		}
		o.Warnings, o.Age = cluster.Warnings, cluster.Age
	}
	return o
}

// foreign makes a token of another cluster the fault of the request.
func foreign(err error) error {
	if errors.Is(err, cluster.ErrForeign) {
		return &query.Error{Kind: query.BadData, Err: err}
	}
	return err
}

func ingestOptions(n *node) *ingest.Options {
	return &ingest.Options{MaxBodyBytes: int(n.cfg.MaxBodyBytes), Logger: n.log, Registerer: n.reg}
}
