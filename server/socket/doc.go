// Package socket looks at the operating system's side of a connection, below TLS and
// other wrappers, without reading or writing. All functions are safe for concurrent use.
package socket
