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
