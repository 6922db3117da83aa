package wal

import (
	"errors"
	"fmt"
)

var (
	// ErrFailed: a write or an fsync failed earlier; wrapped together with the cause.
	ErrFailed = errors.New("log has failed")
	// ErrClosed: the log is closed.
	ErrClosed = errors.New("log is closed")
	// ErrNotFound: there is no live entry at that index.
	ErrNotFound = errors.New("log entry not found")
	// ErrOrder: an entry's index does not follow the stream's last.
	ErrOrder = errors.New("log entries out of order")
	// ErrTooLarge: the entries of one Append are larger than a batch may be.
	ErrTooLarge = errors.New("log entries too large")

	errMagic    = errors.New("bad magic")
	errVersion  = errors.New("unknown version")
	errChecksum = errors.New("checksum mismatch")
	errPlace    = errors.New("batch of another place")
	errRecord   = errors.New("malformed record")
)

// CorruptionError names the place of damage that is not a torn tail.
type CorruptionError struct {
	Path   string
	Offset int64
	Err    error
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s: corrupt at byte %d: %v; restore the file from a backup or a replica", e.Path, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }
