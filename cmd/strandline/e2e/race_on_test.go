//go:build race

package e2e

// race says that the tests run under the race detector, and with them the program, which
// takes five to ten times the memory then (https://go.dev/doc/articles/race_detector).
const (
	race         = true
	memoryFactor = 10
)
