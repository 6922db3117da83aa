package server

import "errors"

// Errors of this package.
var (
	// ErrBadOptions: an option can't be used.
	ErrBadOptions = errors.New("bad server options")
	// ErrOpenListener: listening beyond loopback without TLS and authentication.
	ErrOpenListener = errors.New("refusing to listen beyond loopback without TLS and authentication: configure both, listen on 127.0.0.1, or pass --insecure")
)
