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

// trySend is the system's side of Sender.TryWrite. The errors are the system's.
func trySend(fd uintptr, b []byte) (n int, err error) {
	for {
		if n, err = sendNow(fd, b); err != unix.EINTR {
			break
		}
	}
	if err == unix.EAGAIN {
		err = nil
	}
	return max(n, 0), err
}
