// Package socket looks at the operating system's side of a connection, below TLS and
// other wrappers: it reads nothing, and never waits. All functions are safe for
// concurrent use.
package socket
