package server

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
)

// short is a listener for which the system lacks something a few times, and which then has
// what is in last.
type short struct {
	net.Listener
	left int
	last error
}

func (s *short) Accept() (net.Conn, error) {
	if s.left--; s.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return nil, s.last
}

// TestListenerOutlivesShortage: only what is the listener's end ends it.
func TestListenerOutlivesShortage(t *testing.T) {
	for _, last := range []error{nil, net.ErrClosed, errors.New("another")} {
		s := &short{left: 3, last: last}
		if _, err := newPatient(s, slog.New(slog.DiscardHandler)).Accept(); !errors.Is(err, last) || s.left != -1 {
			t.Errorf("got %v, %d", err, s.left)
		}
	}
}
