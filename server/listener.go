package server

import (
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

// longestPause bounds how long a listener waits before it tries again.
const longestPause = time.Second

// patient is a listener that outlives what the system can't do for the moment, such as to
// open one more file: fasthttp takes any such error for the end.
type patient struct {
	net.Listener
	log      *slog.Logger
	warnings *rate.Limiter
}

func newPatient(ln net.Listener, log *slog.Logger) *patient {
	return &patient{Listener: ln, log: log, warnings: rate.NewLimiter(rate.Every(10*time.Second), 1)}
}

// Accept implements net.Listener.
func (p *patient) Accept() (net.Conn, error) {
	pause := 5 * time.Millisecond
	for {
		conn, err := p.Listener.Accept()
		var errno syscall.Errno
		if err == nil || errors.Is(err, net.ErrClosed) || !errors.As(err, &errno) {
			return conn, err
		}
		if p.warnings.Allow() {
			p.log.Warn("a connection could not be accepted; trying again", "err", err)
		}
		time.Sleep(pause)
		pause = min(2*pause, longestPause)
	}
}
