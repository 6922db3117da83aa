// Package e2e tests the built binary from outside, over HTTP and signals alone: a real Prometheus as sender and
// as oracle, SIGKILL under load, answers that get lost, hostile bodies, and clean stops.
//
// Every test keeps its own ledger of what was acknowledged (series, timestamp, value bits). TestMain builds the
// binary once; STRANDLINE_BINARY names one to test instead. Under the race detector the binary has it as well: a
// race ends the process that has it, and fails the test. Tests that need Prometheus 3.16 or
// prometheus-node-exporter, or network namespaces, loop devices and ptrace, are left out where those are missing
// or not permitted, and fail there if CI is true.
package e2e
