// Package dash answers the dashboard endpoints: the latest values of some metrics,
// and the values of one metric over a period, in plain JSON for clients that know
// nothing of PromQL. DASH.md describes requests and answers.
//
// In come requests for /api/v1/metrics/realtime and /api/v1/metrics/historical; out
// go JSON answers, or errors in Prometheus' envelope. The latest values come from
// a model.Reader, periods are evaluated by the query engine, so that they mean what
// PromQL means. Answers are kept for a moment by a server/cache, and nothing of a
// request outlives its handler: computations get parsed values alone.
//
// A Dash is safe for concurrent use. Its only goroutines are the cache's, which
// Close joins.
package dash
