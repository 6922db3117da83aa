//go:build !linux

package api

// peerClosed can't tell on this system: a query then runs to its timeout.
func peerClosed(int) bool { return false }
