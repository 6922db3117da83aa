//go:build !unix

package socket

import "syscall"

// Writable can't tell here.
func Writable(syscall.RawConn) bool { return false }

// TryWrite can't here: it writes nothing.
func TryWrite(syscall.RawConn, []byte) (int, error) { return 0, nil }
