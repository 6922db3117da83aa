package api

import "golang.org/x/sys/unix"

// peerClosed asks the kernel whether the peer has closed or reset the
// connection, whatever bytes still wait to be read. A peer that only closed its
// sending side counts as gone, as it does in Go's own HTTP server.
func peerClosed(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
