// Package query answers PromQL over the read contract of shard/model.
//
// In come expressions and times; out go Prometheus' own result types and typed
// errors. Evaluation is done by Prometheus' engine (promql.Engine), so that an
// expression means what Prometheus says it means; this package adapts the
// storage to it, bounds how many queries run at once and how many series and
// samples each may hold, lists and kills running queries, and logs slow ones.
//
// A Querier looks up all that a query selects at once, when the first of it is wanted, so
// that what is named twice is the same: of one instant of each shard.
//
// A Querier decodes a series only when its iterator is first advanced, into
// columns that belong to the iterator. They go back to a pool when the Querier
// is closed, so neither iterators nor series may be used after that. Histograms
// handed to the engine are copies, since the engine keeps and changes them.
//
// If the reader is a model.Scatterer and some data lies at other nodes, aggregations are
// done in parts where the data is, and samples stay where they are:
//
//	Engine.Range -> plan (which can be) -> Scatterer -> Engine.Fragment at each node
//	                                                    (batches of series -> partial.Fold)
//	promql.Engine <- selectors of the results <- partial.Merge <- answers
//
// That is sum, avg, min, max, count and group over an expression that can be worked out
// for each series by itself (plan.go). The result is that of one evaluation over all
// series, up to the last bits of sums; what could differ (native histograms, sums that
// overflow, a pair's series that placement may have put at two nodes) is not done so, and
// whatever fails is read as samples, which gives the result or the error. A fragment holds
// its groups and a batch of series, and MaxSamples bounds these. Each fragment is of an
// instant of its own; those that are the same are worked on once.
//
// An Engine is safe for concurrent use. A Querier serves one query: its methods
// may be called from several goroutines, each iterator from one at a time. The
// package starts no goroutine that outlives a call. It imports no storage, only its contract.
package query
