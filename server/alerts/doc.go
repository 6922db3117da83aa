// Package alerts keeps subscriptions to alerts: a metric or an expression, a
// comparison with a threshold, and a webhook that is told when it begins to hold
// and when it ends.
//
// In come requests at /api/v1/alerts/subscribe; subscriptions, the state of their alerts
// and the messages to be delivered are records of a Store, in a cluster the same on every
// node. The node that leads evaluates them with the rules package and hands messages to
// the webhook package. A transition of an alert and its message are one change of the
// store, guarded by the revision of the state before: whatever is restarted or taken
// over, each transition queues its message once.
//
// A Service is safe for concurrent use. It runs a goroutine for each subscription while it
// leads; Close joins them. Secrets and the paths of URLs stay inside: no answer and no log has them.
package alerts
