// Package peers runs a server under measurement as a child process and reads what it costs from /proc:
// CPU time, anonymous memory and, after a graceful stop, the size of its folder. It knows how strandline,
// VictoriaMetrics and Prometheus are started, fed, asked and stopped; all run with their default settings.
//
// A Process belongs to one goroutine; its memory sampler is joined by Stop and Kill.
package peers
