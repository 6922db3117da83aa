// Package partial is what nodes tell each other of an aggregation that each works out
// over its own series: the request, the partial results, and how these become one.
//
// In comes a Request, and at a node the values of series one by one (Fold); out go
// Answers, which Merge joins. Both travel in the encoding of FORMAT.md. The arithmetic
// is that of Prometheus' aggregations: sums carry their compensation (Kahan, Neumaier),
// so that a sum of partial sums is no worse than one sum over everything. Where the
// result would depend on the order of the series, or on what floats alone can't tell, an
// answer is unfit and the caller reads the samples instead; see Answer.Unfit.
//
// Decoded values own their memory. A Fold serves one goroutine; everything else is plain
// data. The package reads no storage and evaluates no expression.
package partial
