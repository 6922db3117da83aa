package main

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/server/config"
	"github.com/strandline-db/strandline/server/ingest"
)

// addSettingFlags gives the command a flag for every setting that may have one.
func addSettingFlags(cmd *cobra.Command) {
	for _, s := range config.Settings() {
		if s.FileOnly {
			continue
		}
		cmd.Flags().String(s.Name, s.Default, s.Help)
		if s.Switch {
			cmd.Flags().Lookup(s.Name).NoOptDefVal = "true"
		}
	}
}

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
	return &engine.Options{
		Logger: n.log, Registerer: n.reg,
		Shards: c.Shards, Retention: orNegative(c.Retention), RetentionBytes: c.RetentionBytes,
		WarmAfter: c.WarmAfter, ColdAfter: c.ColdAfter, WarmDir: c.WarmDir, ColdDir: c.ColdDir,
		FlushInterval: c.FlushInterval, HeadBytes: c.HeadBytes, MaxSeries: orNegative(c.MaxSeries),
		MaxFuture: c.MaxFuture, MinFreeBytes: orNegative(c.MinFreeBytes),
		OnFailure: func(err error) { n.failed <- err },
	}
}

func apiOptions(c *config.Config) *api.Options {
	return &api.Options{
		MaxResponseBytes: int(c.QueryMaxResponseBytes),
		Version:          api.BuildInfo{Version: version, GoVersion: runtime.Version()},
		Config:           c.YAML,
		Flags:            c.Values,
	}
}

func ingestOptions(n *node) *ingest.Options {
	return &ingest.Options{MaxBodyBytes: int(n.cfg.MaxBodyBytes), Logger: n.log, Registerer: n.reg}
}
