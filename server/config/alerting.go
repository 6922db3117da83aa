package config

import (
	"net/netip"
	"time"

	"github.com/strandline-db/strandline/server/alertmanager"
	"github.com/strandline-db/strandline/server/webhook"
)

// alerting are the settings of rules and alerts.
func alerting() []Setting {
	return []Setting{
		{Name: "rule-files", List: true, Reloadable: true, Help: "files with Prometheus' rules, separated by commas (in YAML a list); `*` and `?` are wildcards", set: texts(func(c *Config) *[]string { return &c.RuleFiles }, nil)},
		{Name: "rule-interval", Default: "1m", Reloadable: true, Help: "how often groups of rules are evaluated that don't say it", set: duration(func(c *Config) *time.Duration { return &c.RuleInterval }, false)},
		{Name: "rule-query-offset", Default: "0s", Reloadable: true, Help: "how far behind the clock groups of rules are evaluated that don't say it", set: duration(func(c *Config) *time.Duration { return &c.RuleQueryOffset }, true)},
		{Name: "slo", Help: "list of objectives: name, target, good and total (or error-ratio), window, labels", Reloadable: true, FileOnly: true},
		{Name: "external-url", Help: "URL of this server as others reach it, for links and templates of alerts", set: webURL(func(c *Config) *string { return &c.ExternalURL })},
		{Name: "alertmanagers", List: true, Help: "URLs of Alertmanagers, separated by commas (in YAML a list); each is told all alerts of rule files", set: texts(func(c *Config) *[]string { return &c.Alertmanagers }, alertmanager.CheckURL)},
		{Name: "alertmanager-user", Help: "name for basic authentication at the Alertmanagers", set: text(func(c *Config) *string { return &c.AlertmanagerUser }, true)},
		{Name: "alertmanager-password-file", Help: "file with the password for it, read at each request", set: text(func(c *Config) *string { return &c.AlertmanagerPasswordFile }, true)},
		{Name: "alert-resend-delay", Default: "1m", Help: "time before an Alertmanager is told again of an alert that fires", set: duration(func(c *Config) *time.Duration { return &c.AlertResendDelay }, false)},
		{Name: "alert-outage-tolerance", Default: "1h", Help: "longest outage after which alerts go on from where they were", set: duration(func(c *Config) *time.Duration { return &c.AlertOutageTolerance }, false)},
		{Name: "alert-grace-period", Default: "10m", Help: "least time between a restart and an alert that was pending before it to fire, if its `for` is as long", set: duration(func(c *Config) *time.Duration { return &c.AlertGracePeriod }, false)},
		{Name: "alert-max-subscriptions", Default: "1000", Help: "most subscriptions to alerts", set: count(func(c *Config) *int { return &c.AlertMaxSubscriptions }, 1, 100_000)},
		{Name: "webhook-allow", List: true, Help: "networks that are not public and that webhooks may connect to all the same, such as `10.1.0.0/16`, separated by commas (in YAML a list)", set: networks(func(c *Config) *[]netip.Prefix { return &c.WebhookAllow })},
	}
}

func networks(field func(*Config) *[]netip.Prefix) setter {
	return func(c *Config, s string) error {
		var names []string
		if err := texts(func(*Config) *[]string { return &names }, nil)(c, s); err != nil {
			return err
		}
		list := make([]netip.Prefix, 0, len(names))
		for _, name := range names {
			p, err := webhook.ParseAllow(name)
			if err != nil {
				return err
			}
			list = append(list, p)
		}
		*field(c) = list
		return nil
	}
}
