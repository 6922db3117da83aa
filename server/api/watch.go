package api

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/strandline-db/strandline/server/socket"
)

// Watch looks at a connection at each interval and calls gone once, when the
// peer has closed it. stop ends the watch; when it has returned, the connection
// is no longer touched. Nothing is read, so that TLS and pipelined requests are
// left alone. A connection without a descriptor is not watched.
func Watch(conn net.Conn, interval time.Duration, gone func()) (stop func()) {
	raw := socket.Raw(conn)
	if raw == nil {
		return func() {}
	}
	w := &watcher{raw: raw, interval: interval, gone: gone}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.timer = time.AfterFunc(interval, w.look)
	return w.stop
}

type watcher struct {
	raw      syscall.RawConn
	interval time.Duration
	gone     func()
	mu       struct {
		sync.Mutex
		timer *time.Timer
		over  bool
	}
}

// look runs under the lock, which stop waits for. It never blocks.
func (w *watcher) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.over {
		return
	}
	closed := false
	if err := w.raw.Control(func(fd uintptr) { closed = peerClosed(int(fd)) }); err != nil || closed {
		w.mu.over = true
		w.gone()
		return
	}
	w.mu.timer.Reset(w.interval)
}

func (w *watcher) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.over = true
	w.mu.timer.Stop()
}
