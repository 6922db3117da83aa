// Package load sends a workload to a server: one connection and one goroutine a lane, each body only after the
// one before it was answered. It reuses one buffer a lane, so that it takes little of the CPU it shares with
// the server, and reports what it took.
package load
