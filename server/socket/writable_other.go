//go:build !unix

package socket

import "syscall"

// Writable can't tell here.
func Writable(syscall.RawConn) bool { return false }
