// Package server assembles the HTTP server: routes, the role each one needs,
// limits, certificates, and the refusal to listen openly. Writing and reading are
// handlers that it is given once there is a storage behind them; until then it
// answers 503. SelfScrape stores the process's own metrics.
//
// Nothing of a request outlives its handler. A Server is safe for concurrent use
// and starts no goroutine but those of its listener, which Shutdown ends.
package server
