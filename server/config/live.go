package config

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/strandline-db/strandline/server/auth"
)

// livings are the settings of live queries.
func livings() []Setting {
	return []Setting{
		{Name: "live-max-connections", Default: "2048", Help: "most live clients at a time; at most max-connections", set: count(func(c *Config) *int { return &c.LiveMaxConnections }, 1, 1<<20)},
		{Name: "live-max-subscriptions", Default: "100", Help: "most subscriptions of one live client", set: count(func(c *Config) *int { return &c.LiveMaxSubscriptions }, 1, 1<<16)},
		{Name: "live-max-series", Default: "1000", Help: "most series of one live subscription", set: count(func(c *Config) *int { return &c.LiveMaxSeries }, 1, 1<<24)},
		{Name: "live-max-queries", Default: "1000", Help: "most distinct live queries at a time", set: count(func(c *Config) *int { return &c.LiveMaxQueries }, 1, 1<<20)},
		{Name: "live-max-backfill", Default: "24h", Help: "how far back a live query may start or resume", set: duration(func(c *Config) *time.Duration { return &c.LiveMaxBackfill }, false)},
		{Name: "live-max-message-bytes", Default: "64KiB", Help: "largest message of a live client", set: size(func(c *Config) *int64 { return &c.LiveMaxMessageBytes }, 1024)},
		{Name: "live-delay", Default: "500ms", Help: "how long after its time a step of a live query is evaluated", set: duration(func(c *Config) *time.Duration { return &c.LiveDelay }, true)},
		{Name: "live-horizon", Default: "1m", Help: "age up to which a step is sent again when late samples change it; 0: never", set: duration(func(c *Config) *time.Duration { return &c.LiveHorizon }, true)},
		{Name: "live-write-timeout", Default: "10s", Help: "how long a live client may take nothing before it is cut", set: duration(func(c *Config) *time.Duration { return &c.LiveWriteTimeout }, false)},
		{Name: "live-origins", Reloadable: true, Help: "origins, besides the server's own, whose pages may open live queries: `https://a.example,https://b.example:8443`, or `*`", set: origins(func(c *Config) *[]string { return &c.LiveOrigins })},
		{Name: "live-compression", Default: "true", Help: "compress for live clients that ask for it", Switch: true, set: boolean(func(c *Config) *bool { return &c.LiveCompression })},
	}
}

// origins reads a list of scheme://host[:port], as browsers write them, or the star.
func origins(field func(*Config) *[]string) setter {
	return func(c *Config, s string) error {
		*field(c) = nil
		for o := range strings.SplitSeq(s, ",") {
			if o = strings.TrimSpace(o); o == "" {
				continue
			}
			if o != "*" {
				u, err := url.Parse(o)
				if err != nil || u.Scheme == "" || u.Host == "" || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) || strings.Contains(u.Host, "*") {
					return errors.New("want origins such as https://a.example:8443, joined by commas, or * alone for all")
				}
				o = auth.CanonicalOrigin(u)
			}
			*field(c) = append(*field(c), o)
		}
		return nil
	}
}
