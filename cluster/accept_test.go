package cluster

import (
	"log/slog"
	"net"
	"syscall"
	"testing"

	"golang.org/x/time/rate"
)

// shortListener is one for which the system lacks something a few times, and which then ends.
type shortListener struct {
	net.Listener
	left int
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.left--; l.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return nil, net.ErrClosed
}

// TestAcceptOutlivesShortage: a node without a file to spare stays open to the others.
func TestAcceptOutlivesShortage(t *testing.T) {
	n := &Node{opts: Options{Logger: slog.New(slog.DiscardHandler)}, refused: rate.NewLimiter(0, 0)}
	l := &shortListener{left: 3}
	n.accept(t.Context(), l)
	if l.left != -1 {
		t.Errorf("%d times left", l.left)
	}
}
