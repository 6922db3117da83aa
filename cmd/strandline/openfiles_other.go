//go:build !unix

package main

// maxOpenFiles can't tell here.
func maxOpenFiles() uint64 { return 0 }
