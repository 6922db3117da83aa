// Package api is the read side of Prometheus' HTTP API, version 1, on fasthttp:
// queries, labels, series, exemplars, metadata and status.
//
// In come requests below the prefix /api/v1; out go answers in Prometheus'
// envelope, with its wording and status codes. Where we differ on purpose:
// storage that is closed, failed or overloaded is "unavailable" (503, with
// Retry-After if a retry helps), damaged storage is "internal" (500), and an
// answer above MaxResponseBytes is "execution" (422).
//
// Answers are encoded by hand into one bounded buffer, then compressed if the
// client takes gzip. Nothing of a request outlives its handler.
//
// fasthttp does not tell a handler that its client has left. A running query is
// therefore bound to a context that ends with its timeout, with Close, or when a
// look at the connection (see Watch) finds the peer gone.
//
// An API is safe for concurrent use and starts no goroutine. It authenticates
// nobody: whoever mounts it does.
package api
