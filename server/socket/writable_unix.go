//go:build unix

package socket

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Writable reports whether the socket takes at least a third of its send buffer now.
// It does not for a nil raw, or where that can't be told.
func Writable(raw syscall.RawConn) bool {
	if raw == nil {
		return false
	}
	ok := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(fds, 0)
		ok = err == nil && n == 1
	})
	return err == nil && ok
}

// TryWrite writes what the socket takes at once, perhaps nothing, and never waits. The
// errors are the system's.
func TryWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	failed := raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.Write(int(fd), b)
			if err != unix.EINTR {
				return true // also when the socket is full: RawConn would wait
			}
		}
	})
	n = max(n, 0)
	if failed != nil {
		return n, failed
	}
	if err == unix.EAGAIN {
		err = nil
	}
	return n, err
}
