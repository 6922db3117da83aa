package config

import (
	"math"
	"slices"
	"time"
)

// Setting describes one setting: a flag and YAML key of the same name.
type Setting struct {
	Name, Default, Help string
	Reloadable          bool // takes effect on SIGHUP
	FileOnly            bool // no flag: it is a list, or would show a secret
	Switch              bool // a flag that needs no value
	List                bool // values separated by commas; in YAML a list too
	set                 setter
}

// Settings returns the table of all settings, in the order of documentation.
func Settings() []Setting {
	return slices.Concat(serving(), storing(), querying(), livings(), dashboards(), alerting(), clustering())
}

func serving() []Setting {
	return []Setting{
		{Name: "data", Default: "./data", Help: "folder of the data", set: text(func(c *Config) *string { return &c.Data }, false)},
		{Name: "listen", Default: "127.0.0.1:9595", Help: "host and port to listen on", set: hostPort(func(c *Config) *string { return &c.Listen })},
		{Name: "insecure", Default: "false", Help: "permit listening beyond loopback without TLS and authentication", Switch: true, set: boolean(func(c *Config) *bool { return &c.Insecure })},
		{Name: "log-level", Default: "info", Help: "least level to log: debug, info, warn or error", Reloadable: true, set: level(func(c *Config) *string { return &c.LogLevel })},
		{Name: "tls-cert", Help: "file with the certificate chain (PEM); its content is reloaded when it changes", set: text(func(c *Config) *string { return &c.TLSCert }, true)},
		{Name: "tls-key", Help: "file with the certificate's private key (PEM)", set: text(func(c *Config) *string { return &c.TLSKey }, true)},
		{Name: "users", Help: "list of name, password-hash (bcrypt) and role (read, write or admin)", Reloadable: true, FileOnly: true},
		{Name: "tokens", Help: "list of name, sha256 (of the token, in hex) and role", Reloadable: true, FileOnly: true},
		{Name: "hosts", List: true, Reloadable: true, Help: "names by which the server may be asked, such as `metrics.example`, besides localhost and addresses (in YAML a list); empty: any", set: texts(func(c *Config) *[]string { return &c.Hosts }, hostName)},
		{Name: "audit-log", Help: "file for denials and admin actions, in JSON lines; empty: the log", set: text(func(c *Config) *string { return &c.AuditLog }, true)},
		{Name: "max-body-bytes", Default: "32MiB", Help: "largest request body", set: size(func(c *Config) *int64 { return &c.MaxBodyBytes }, 1)},
		{Name: "max-connections", Default: "4096", Help: "most connections at a time; never more than half of the files that the system lets the process open (`ulimit -n`)", set: count(func(c *Config) *int { return &c.MaxConnections }, 1, 1<<20)},
		{Name: "self-scrape-interval", Default: "15s", Help: "how often the server stores its own metrics; 0: never", set: duration(func(c *Config) *time.Duration { return &c.SelfScrapeInterval }, true)},
	}
}

func clustering() []Setting {
	return []Setting{
		{Name: "cluster-node", Help: "name of this node; empty: no cluster", set: text(func(c *Config) *string { return &c.ClusterNode }, true)},
		{Name: "cluster-peers", Help: "all nodes that form the cluster, this one too, the same list on each: `n1=host:port,n2=host:port,n3=host:port`", set: text(func(c *Config) *string { return &c.ClusterPeers }, true)},
		{Name: "cluster-join", Help: "host and port (cluster-listen) of any node of a running cluster that this one is to enter, instead of cluster-peers", set: text(func(c *Config) *string { return &c.ClusterJoin }, true)},
		{Name: "cluster-listen", Help: "host and port for the other nodes; empty: that of cluster-peers", set: text(func(c *Config) *string { return &c.ClusterListen }, true)},
		{Name: "cluster-advertise", Help: "host and port at which the other nodes reach this one; empty: that of cluster-peers, or cluster-listen", set: text(func(c *Config) *string { return &c.ClusterAdvertise }, true)},
		{Name: "cluster-tls-cert", Help: "file with this node's certificate (PEM), made out to its name; it and the key may be replaced at any time", set: text(func(c *Config) *string { return &c.ClusterTLSCert }, true)},
		{Name: "cluster-tls-key", Help: "file with the certificate's private key (PEM)", set: text(func(c *Config) *string { return &c.ClusterTLSKey }, true)},
		{Name: "cluster-tls-ca", Help: "file with the authority of all nodes' certificates (PEM)", set: text(func(c *Config) *string { return &c.ClusterTLSCA }, true)},
		{Name: "cluster-heartbeat", Default: "500ms", Help: "silence of a leader after which another is elected", set: duration(func(c *Config) *time.Duration { return &c.ClusterHeartbeat }, false)},
		{Name: "cluster-commit-timeout", Default: "5s", Help: "longest time that a write looks for a leader and a majority", set: duration(func(c *Config) *time.Duration { return &c.ClusterCommitTimeout }, false)},
		{Name: "cluster-fetch-rate", Default: "0", Help: "most bytes a second of blocks fetched from other nodes; 0: no limit", set: size(func(c *Config) *int64 { return &c.ClusterFetchRate }, 0)},
		{Name: "consistency", Default: "stale", Help: "what a read sees that does not say: stale, leader or linearizable", set: oneOf(func(c *Config) *string { return &c.Consistency }, "stale", "leader", "linearizable")},
	}
}

func storing() []Setting {
	return []Setting{
		{Name: "retention", Default: "395d", Help: "age at which samples are dropped; 0: never", set: duration(func(c *Config) *time.Duration { return &c.Retention }, true)},
		{Name: "retention-bytes", Default: "0", Help: "size of all blocks above which the oldest samples are dropped; 0: no limit", set: size(func(c *Config) *int64 { return &c.RetentionBytes }, 0)},
		{Name: "warm-after", Default: "7d", Help: "age at which blocks move to the warm tier", set: duration(func(c *Config) *time.Duration { return &c.WarmAfter }, false)},
		{Name: "cold-after", Default: "30d", Help: "age at which blocks move to the cold tier", set: duration(func(c *Config) *time.Duration { return &c.ColdAfter }, false)},
		{Name: "warm-dir", Help: "folder of the warm tier; empty: inside the data folder", set: text(func(c *Config) *string { return &c.WarmDir }, true)},
		{Name: "cold-dir", Help: "folder of the cold tier; empty: inside the data folder", set: text(func(c *Config) *string { return &c.ColdDir }, true)},
		{Name: "backup-dir", Help: "folder below which POST /api/v1/admin/backup makes backups, best on the disk of the data; empty: it makes none", set: text(func(c *Config) *string { return &c.BackupDir }, true)},
		{Name: "flush-interval", Default: "2h", Help: "longest time that samples wait in memory and log for their block", set: duration(func(c *Config) *time.Duration { return &c.FlushInterval }, false)},
		{Name: "head-bytes", Default: "256MiB", Help: "rough bound of the packed samples in memory; more is flushed early", set: size(func(c *Config) *int64 { return &c.HeadBytes }, 1)},
		{Name: "max-series", Default: "10000000", Help: "most active series; 0: no limit", set: count(func(c *Config) *int { return &c.MaxSeries }, 0, math.MaxInt32)},
		{Name: "max-future", Default: "0s", Help: "how far ahead of the clock a sample may lie; 0: anywhere", set: duration(func(c *Config) *time.Duration { return &c.MaxFuture }, true)},
		{Name: "shards", Default: "8", Help: "hash partitions of a new data folder; one that exists keeps its own", set: count(func(c *Config) *int { return &c.Shards }, 1, 1024)},
		{Name: "scrub-rate", Default: "1MiB", Help: "bytes a second of blocks read in the background to find damage; 0: none", set: size(func(c *Config) *int64 { return &c.ScrubRate }, 0)},
		{Name: "min-free-bytes", Default: "256MiB", Help: "free disk space below which writes are refused; 0: unchecked", set: size(func(c *Config) *int64 { return &c.MinFreeBytes }, 0)},
	}
}

func querying() []Setting {
	return []Setting{
		{Name: "query-timeout", Default: "2m", Help: "longest time of a query, queueing included", set: duration(func(c *Config) *time.Duration { return &c.QueryTimeout }, false)},
		{Name: "query-max-samples", Default: "50000000", Help: "most samples that a query holds in memory at a time", set: count(func(c *Config) *int { return &c.QueryMaxSamples }, 1, math.MaxInt32)},
		{Name: "query-max-series", Default: "0", Help: "most series of one selector; 0: no limit", set: count(func(c *Config) *int { return &c.QueryMaxSeries }, 0, math.MaxInt32)},
		{Name: "query-max-concurrent", Default: "20", Help: "queries that run at a time; ten times as many may wait", set: count(func(c *Config) *int { return &c.QueryMaxConcurrent }, 1, 1<<16)},
		{Name: "query-lookback-delta", Default: "5m", Help: "age up to which a sample counts at an instant", set: duration(func(c *Config) *time.Duration { return &c.QueryLookbackDelta }, false)},
		{Name: "replica-label", Default: "__replica__", Help: "label by which a pair of senders of the same series is told apart: they are read as one, without a gap when one is away; empty: as they are", set: text(func(c *Config) *string { return &c.ReplicaLabel }, true)},
		{Name: "query-max-response-bytes", Default: "256MiB", Help: "largest answer before compression", set: size(func(c *Config) *int64 { return &c.QueryMaxResponseBytes }, 1024)},
	}
}
