//go:build unix && !linux

package socket

import "golang.org/x/sys/unix"

// sendNow relies on the socket being non-blocking, as the runtime makes it.
func sendNow(fd uintptr, b []byte) (int, error) { return unix.Write(int(fd), b) }
