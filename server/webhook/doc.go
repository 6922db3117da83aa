// Package webhook delivers small JSON messages to URLs that users have named, and
// keeps at it until they are taken or too old.
//
// In come messages, as records of a Store (in a cluster the same on every node); out go
// signed POSTs, one at a time and in order for each subscription. A record goes when a
// target has answered 2xx, so a message is delivered at least once, whatever is
// restarted in between. WEBHOOK.md describes records, headers, body and retries.
//
// Users choose where this server connects to, so that is guarded: only http and https,
// no credentials in the URL, no redirect is followed, no proxy is used, every
// address of a name is checked against the policy, and the connection goes to an
// address that was checked. Neither a secret nor the path of a URL, which may be one,
// is logged or shown.
//
// A Dispatcher is safe for concurrent use. It runs a goroutine for each
// subscription with messages between Start and Stop; Stop joins them.
package webhook
