package client

import (
	"errors"
	"fmt"
)

// Errors of this package, for errors.Is.
var (
	// ErrBadOptions: a URL or an option can't be used.
	ErrBadOptions = errors.New("bad live client options")
	// ErrClosed: the client or the subscription was closed.
	ErrClosed = errors.New("live client is closed")
	// ErrRefused: the server will not have this client; trying again is of no use.
	ErrRefused = errors.New("the server refused the connection")
)

// Error is what a server says of a subscription or a step.
type Error struct {
	Type    string // as in the HTTP API: bad_data, execution, timeout, unavailable, internal; or limit
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Type, e.Message) }

// passing reports whether it may go away by itself.
func (e *Error) passing() bool {
	return e.Type == "unavailable" || e.Type == "timeout" || e.Type == "internal" || e.Type == "canceled"
}
