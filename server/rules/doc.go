// Package rules evaluates Prometheus rule files: recording rules, whose results
// become series, and alerting rules, whose instances become the series ALERTS and
// ALERTS_FOR_STATE and are handed to a notifier.
//
// In come files (parsed by Prometheus' own rulefmt), a query engine, the time and,
// in a cluster, word of who leads: one node evaluates. Out go batches of samples to
// an Appender, alerts to a Notifier, and Prometheus' JSON for /api/v1/rules,
// /api/v1/alerts and /api/v1/alertmanagers. What an expression, a state or a
// restart means follows Prometheus' rule manager, which judges us in the tests.
//
// Where we differ on purpose:
//   - Alerts that were told to the notifier are also kept as a record of the Store,
//     one a group. After a restart or a takeover an alert that still fires keeps its
//     start and is not told again before the resend delay, and one that ended
//     meanwhile is told as resolved; Prometheus sends the former again and never the latter.
//   - Our storage takes late samples and lets the newer of two at one time win. A stale
//     marker is therefore not written at all where Prometheus' storage would refuse it.
//
// In a cluster the queries read at level leader: each rule sees what was acknowledged before.
//
// A Manager is safe for concurrent use. It runs a goroutine a group, which Close
// joins. An Alerts (one rule's instances) is for one evaluation at a time; reading it is
// safe meanwhile. Labels are immutable; slices handed out are copies.
package rules
