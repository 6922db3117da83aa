//go:build !unix

package socket

import "syscall"

// Writable can't tell here.
func Writable(syscall.RawConn) bool { return false }

// trySend can't here: it writes nothing.
func trySend(uintptr, []byte) (int, error) { return 0, nil }
