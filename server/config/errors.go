package config

import "errors"

// Errors that Load wraps; each message names the key, and its line in the file.
var (
	// ErrUnknownKey: the file has a key that no setting is called.
	ErrUnknownKey = errors.New("unknown key")
	// ErrBadValue: a value can't be read as its setting's kind, does not fit
	// another setting, or a key is repeated.
	ErrBadValue = errors.New("bad value")
)
