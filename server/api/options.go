package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/clock"
)

// Options configure an API. Nil and zero values mean the defaults named here.
type Options struct {
	// MaxResponseBytes bounds an answer before compression. Default 256 MiB.
	MaxResponseBytes int
	// GzipMinBytes is the size from which an answer is compressed. Default 1400;
	// negative: never.
	GzipMinBytes int
	// WatchInterval is the time between looks at a client's connection. Default 100ms.
	WatchInterval time.Duration
	// Version of the build, for status/buildinfo.
	Version BuildInfo
	// Config returns the configuration as YAML, without secrets. Default: empty.
	Config func() string
	// Flags returns the settings by name, without secrets. Default: none.
	Flags func() map[string]string
	// Reloads tells whether the last attempt to read the settings succeeded, and when one
	// last did. Default: at the start.
	Reloads func() (ok bool, at time.Time)
	// Runtime describes the process. Default: what the Go runtime knows.
	Runtime func() (RuntimeInfo, error)
	// TSDB returns figures about the series, at most limit entries a list. Without
	// it status/tsdb is not served.
	TSDB func(limit int) (TSDBStatus, error)
	// Sync returns once the data is as fresh as a request wants it, a context to read it
	// with, and how old it is at most, negative if nobody knows. Nil: it always is.
	Sync func(ctx context.Context, w Freshness) (context.Context, time.Duration, error)
	// Age tells how old at most the data is that a read with a context of Sync has seen,
	// negative if nobody knows. Nil: as Sync said.
	Age func(context.Context) time.Duration
	// Warnings tells what a read with a context of Sync left out. Nil: nothing.
	Warnings func(context.Context) []string
	// Consistency is the level of requests that name none. Default: stale.
	Consistency string
	// Cluster describes the cluster. Nil: this is a single node.
	Cluster func() any
	// Hashes returns the hashes of what this node holds, for admin/cluster/hash.
	Hashes func(context.Context) (any, error)
	// Administer changes the cluster: what is to be done, and its parameters by name.
	Administer func(ctx context.Context, what string, param func(name string) string) (any, error)
	// Backup makes a backup of all data under a name. Nil: it is turned off.
	Backup func(ctx context.Context, name string) (any, error)
	// Logger gets faults of answering. Default: none.
	Logger *slog.Logger
	// Clock tells the default evaluation time. Default the machine's.
	Clock clock.Clock
}

// Freshness is what a request asks of the data it reads.
type Freshness struct {
	Level        string        // stale, leader or linearizable
	MaxStaleness time.Duration // 0: any age
	Applied      model.Applied // writes that it must see
	Partial      bool          // parts that can't be reached may be left out
	Metadata     bool          // it reads the metadata of metrics and nothing else
}

// BuildInfo describes the build. There is no list of features: one would make
// Grafana take us for another product.
type BuildInfo struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Branch    string `json:"branch"`
	BuildUser string `json:"buildUser"`
	BuildDate string `json:"buildDate"`
	GoVersion string `json:"goVersion"`
}

// RuntimeInfo describes the running process, in the fields of Prometheus.
type RuntimeInfo struct {
	StartTime           time.Time `json:"startTime"`
	CWD                 string    `json:"CWD"`
	Hostname            string    `json:"hostname"`
	ServerTime          time.Time `json:"serverTime"`
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"`
	CorruptionCount     int64     `json:"corruptionCount"`
	GoroutineCount      int       `json:"goroutineCount"`
	GOMAXPROCS          int       `json:"GOMAXPROCS"`
	GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
	GOGC                string    `json:"GOGC"`
	GODEBUG             string    `json:"GODEBUG"`
	StorageRetention    string    `json:"storageRetention"`
}

// TSDBStat is a name with a count or a size in bytes.
type TSDBStat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// HeadStats describe the newest data; times are in milliseconds.
type HeadStats struct {
	NumSeries     uint64 `json:"numSeries"`
	NumLabelPairs int    `json:"numLabelPairs"`
	ChunkCount    int64  `json:"chunkCount"`
	MinTime       int64  `json:"minTime"`
	MaxTime       int64  `json:"maxTime"`
}

// TSDBStatus is the answer of status/tsdb.
type TSDBStatus struct {
	HeadStats                   HeadStats  `json:"headStats"`
	SeriesCountByMetricName     []TSDBStat `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []TSDBStat `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []TSDBStat `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []TSDBStat `json:"seriesCountByLabelValuePair"`
}

// EnsureDefaults fills in what is zero. It works on a nil receiver and returns
// the options to use.
func (o *Options) EnsureDefaults() *Options {
	if o == nil {
		o = &Options{}
	}
	if o.MaxResponseBytes == 0 {
		o.MaxResponseBytes = 256 << 20
	}
	if o.GzipMinBytes == 0 {
		o.GzipMinBytes = 1400
	}
	if o.WatchInterval == 0 {
		o.WatchInterval = 100 * time.Millisecond
	}
	if o.Version.GoVersion == "" {
		o.Version.GoVersion = runtime.Version()
	}
	if o.Consistency == "" {
		o.Consistency = "stale"
	}
	if o.Config == nil {
		o.Config = func() string { return "" }
	}
	if o.Flags == nil {
		o.Flags = func() map[string]string { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.Real{}
	}
	if o.Runtime == nil {
		o.Runtime = defaultRuntime(o.Clock, o.Reloads)
	}
	return o
}

func defaultRuntime(c clock.Clock, reloads func() (bool, time.Time)) func() (RuntimeInfo, error) {
	start := c.Now().UTC()
	return func() (RuntimeInfo, error) {
		host, err := os.Hostname()
		ok, read := true, start
		if reloads != nil {
			ok, read = reloads()
		}
		return RuntimeInfo{
			StartTime: start, Hostname: host, ServerTime: c.Now().UTC(), ReloadConfigSuccess: ok, LastConfigTime: read.UTC(),
			GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
			GOGC: os.Getenv("GOGC"), GODEBUG: os.Getenv("GODEBUG"),
		}, err
	}
}

// Validate reports every fault at once.
func (o *Options) Validate() error {
	var errs []error
	if o.MaxResponseBytes < 1024 {
		errs = append(errs, fmt.Errorf("api: MaxResponseBytes must be at least 1024, got %d", o.MaxResponseBytes))
	}
	if o.WatchInterval < 0 {
		errs = append(errs, fmt.Errorf("api: WatchInterval must not be negative, got %s", o.WatchInterval))
	}
	return errors.Join(errs...)
}
