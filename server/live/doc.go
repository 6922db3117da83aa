// Package live pushes the results of live queries to clients: over WebSocket at
// /api/v1/live (and, for the older simple form, /api/v1/metrics/stream), and as
// server-sent events at /api/v1/live/sse. server/LIVE.md describes the protocol.
//
// In comes a hub (package query/live), whose subscriptions are cursors into shared
// results; out go frames. A connection keeps its subscriptions, and bytes only while
// it is being written to: what is not yet sent stays with the hub, which replaces the
// old by the newest when a reader is slow. One goroutine a connection reads, and one more
// for each subscription that waits for a write. A few
// writers, shared by all, take connections that have something to send; one whose
// socket is full, or that has much to send, gets a goroutine of its own until it has
// caught up, so that no client holds up another. One that takes nothing for
// Options.WriteTimeout is cut.
//
// Nothing of a request outlives its handler: the socket is taken out of fasthttp with
// no buffer of its. A Server is safe for concurrent use; Close joins every goroutine.
package live
