// Package query answers PromQL over the read contract of shard/model.
//
// In come expressions and times; out go Prometheus' own result types and typed
// errors. Evaluation is done by Prometheus' engine (promql.Engine), so that an
// expression means what Prometheus says it means; this package adapts the
// storage to it, bounds how many queries run at once and how many series and
// samples each may hold, lists and kills running queries, and logs slow ones.
//
// A Querier decodes a series only when its iterator is first advanced, into
// columns that belong to the iterator. They go back to a pool when the Querier
// is closed, so neither iterators nor series may be used after that. Histograms
// handed to the engine are copies, since the engine keeps and changes them.
//
// An Engine is safe for concurrent use. A Querier serves one query: its methods
// may be called from several goroutines, each iterator from one at a time. The
// package starts no goroutine. It imports no storage, only its contract.
package query
