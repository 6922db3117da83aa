package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/strandline-db/strandline/server/auth"
	"github.com/strandline-db/strandline/server/slo"
)

// Config is every setting's value. See Settings for their meaning.
type Config struct {
	Data, Listen, LogLevel, TLSCert, TLSKey, AuditLog string
	Hosts                                             []string
	Insecure                                          bool
	Users                                             []auth.User
	Tokens                                            []auth.Token
	MaxBodyBytes                                      int64
	MaxConnections                                    int
	SelfScrapeInterval                                time.Duration

	Retention, WarmAfter, ColdAfter, FlushInterval, MaxFuture time.Duration
	RetentionBytes, HeadBytes, MinFreeBytes, ScrubRate        int64
	WarmDir, ColdDir, BackupDir                               string
	MaxSeries, Shards                                         int

	QueryTimeout, QueryLookbackDelta                    time.Duration
	ReplicaLabel                                        string
	QueryMaxSamples, QueryMaxSeries, QueryMaxConcurrent int
	QueryMaxResponseBytes                               int64

	DashboardMaxMetrics, DashboardMaxSeries        int
	DashboardMaxResponseBytes, DashboardCacheBytes int64
	DashboardCacheLife                             time.Duration

	RuleFiles, Alertmanagers                                []string
	ExternalURL, AlertmanagerUser, AlertmanagerPasswordFile string
	RuleInterval, RuleQueryOffset, AlertResendDelay         time.Duration
	AlertMaxSubscriptions                                   int
	WebhookAllow                                            []netip.Prefix
	AlertOutageTolerance, AlertGracePeriod                  time.Duration

	LiveMaxConnections, LiveMaxSubscriptions, LiveMaxSeries, LiveMaxQueries int
	LiveMaxBackfill, LiveDelay, LiveHorizon, LiveWriteTimeout               time.Duration
	LiveMaxMessageBytes                                                     int64
	LiveOrigins                                                             []string
	LiveCompression                                                         bool

	ClusterNode, ClusterPeers, ClusterJoin, ClusterListen, ClusterAdvertise, Consistency string
	ClusterTLSCert, ClusterTLSKey, ClusterTLSCA                                          string
	ClusterHeartbeat, ClusterCommitTimeout                                               time.Duration
	ClusterFetchRate                                                                     int64

	Objectives []slo.Objective

	values map[string]string // as written, by name; no secrets
}

// Load reads the settings: flags go before the YAML file, the file before the
// defaults. file may be empty; flags holds only those that were given. It
// reports every fault at once.
func Load(file []byte, flags map[string]string) (*Config, error) {
	c := &Config{values: map[string]string{}}
	var errs []error
	for _, s := range Settings() {
		if s.FileOnly {
			continue
		}
		if err := c.set(&s, s.Default); err != nil {
			errs = append(errs, fmt.Errorf("default of %s: %w", s.Name, err))
		}
	}
	errs = append(errs, c.parse(file)...)
	for _, s := range Settings() {
		v, given := flags[s.Name]
		if !given || s.FileOnly {
			continue
		}
		if err := c.set(&s, v); err != nil {
			errs = append(errs, fmt.Errorf("flag --%s: %w", s.Name, err))
		}
	}
	if len(errs) == 0 {
		errs = c.relations()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Config) set(s *Setting, v string) error {
	if err := s.set(c, v); err != nil {
		return fmt.Errorf("%w: %w", ErrBadValue, err)
	}
	c.values[s.Name] = v
	return nil
}

// relations checks what no setting can tell alone.
func (c *Config) relations() (errs []error) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, fmt.Errorf("tls-cert and tls-key: %w: give both or none", ErrBadValue))
	}
	if (c.ClusterNode == "") != (c.ClusterPeers+c.ClusterJoin == "") {
		errs = append(errs, fmt.Errorf("cluster-node and cluster-peers or cluster-join: %w: give both or none", ErrBadValue))
	}
	if c.ClusterJoin != "" && (c.ClusterPeers != "" || c.ClusterListen == "") {
		errs = append(errs, fmt.Errorf("cluster-join: %w: it goes with cluster-listen and without cluster-peers", ErrBadValue))
	}
	if given := c.ClusterTLSCert != ""; given != (c.ClusterTLSKey != "") || given != (c.ClusterTLSCA != "") {
		errs = append(errs, fmt.Errorf("cluster-tls-cert, cluster-tls-key and cluster-tls-ca: %w: give all or none", ErrBadValue))
	}
	if (c.AlertmanagerUser == "") != (c.AlertmanagerPasswordFile == "") {
		errs = append(errs, fmt.Errorf("alertmanager-user and alertmanager-password-file: %w: give both or none", ErrBadValue))
	}
	if c.ColdAfter < c.WarmAfter {
		errs = append(errs, fmt.Errorf("cold-after: %w: must not be less than warm-after", ErrBadValue))
	}
	if _, err := auth.New(&auth.Options{Users: c.Users, Tokens: c.Tokens}); err != nil {
		errs = append(errs, fmt.Errorf("users and tokens: %w: %w", ErrBadValue, err))
	}
	return errs
}

// Values returns every setting as it was written, by name, without users and tokens.
func (c *Config) Values() map[string]string { return maps.Clone(c.values) }

// YAML returns the settings as a file, without users and tokens.
func (c *Config) YAML() string {
	var b strings.Builder
	for _, s := range Settings() {
		if v := c.values[s.Name]; v != "" {
			fmt.Fprintf(&b, "%s: %s\n", s.Name, quote(v))
		}
	}
	return b.String()
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// InForce returns the settings after a reload: those of now that take effect by it, and the
// others as they are in c.
func (c *Config) InForce(now *Config) *Config {
	out := *c
	out.values = maps.Clone(c.values)
	out.Users, out.Tokens, out.Objectives = now.Users, now.Tokens, now.Objectives
	for _, s := range Settings() {
		if s.Reloadable && !s.FileOnly {
			_ = out.set(&s, now.values[s.Name]) // it was read before
		}
	}
	return &out
}

// NeedRestart returns the names of the settings that differ from now and take
// effect only when the process starts again.
func (c *Config) NeedRestart(now *Config) []string {
	var names []string
	for _, s := range Settings() {
		if !s.Reloadable && c.values[s.Name] != now.values[s.Name] {
			names = append(names, s.Name)
		}
	}
	return slices.Clip(names)
}
