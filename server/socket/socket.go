package socket

import (
	"net"
	"syscall"
)

// Raw finds the descriptor below TLS and other wrappers; nil: there is none.
func Raw(conn net.Conn) syscall.RawConn {
	if sc, ok := Bottom(conn).(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// Bottom returns the innermost connection.
func Bottom(conn net.Conn) net.Conn {
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapper.NetConn()
	}
}

// Sender writes to sockets, one after the other. It is for one goroutine at a time; the
// zero value is ready for use.
type Sender struct {
	b    []byte
	n    int
	err  error
	send func(fd uintptr) // made once: it would be made anew for each write
}

// TryWrite writes what the socket takes at once, perhaps nothing, and never waits. Nobody
// else may be writing to it.
func (s *Sender) TryWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	if s.send == nil {
		s.send = func(fd uintptr) { s.n, s.err = trySend(fd, s.b) }
	}
	s.b, s.n, s.err = b, 0, nil
	err = raw.Control(s.send)
	s.b = nil
	if err != nil {
		return 0, err
	}
	return s.n, s.err
}
