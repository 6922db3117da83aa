// Package live drives a server as its live clients do: a steady stream of samples, sent on time and not as
// fast as it goes, and many lean connections that read. It takes as little of the cores that it shares with
// the server as it can, checks all that it reads, and says so when it could not keep up: then a run is void.
//
// A Stream and a set of connections belong to one measurement; their goroutines end with the context.
package live
