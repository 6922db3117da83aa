package model

import (
	"cmp"
	"errors"
	"fmt"
	"syscall"
)

// Errors that a caller can tell apart with errors.Is. Each names its HTTP
// meaning, which the server maps.
var (
	// ErrBadLabels: a series' labels are malformed. 400; the sender must not retry.
	ErrBadLabels = errors.New("bad labels")
	// ErrBadSample: a sample can't be stored as sent (broken histogram). 400.
	ErrBadSample = errors.New("bad sample")
	// ErrTooOld: a sample lies before the retention. 400.
	ErrTooOld = errors.New("sample is older than the retention")
	// ErrTooNew: a sample lies further in the future than is allowed. 400.
	ErrTooNew = errors.New("sample is too far in the future")
	// ErrSeriesLimit: a new series would exceed the limit of active series. 400, so
	// that a sender drops the newcomer instead of holding back its known series.
	ErrSeriesLimit = errors.New("limit of active series reached")
	// ErrOverloaded: queues are full. 503 with Retry-After.
	ErrOverloaded = errors.New("overloaded, try again")
	// ErrUnavailable: no leader, or no majority of the replicas, could be reached. What
	// was asked may or may not have been done; asking again is harmless.
	ErrUnavailable = errors.New("not enough replicas can be reached, try again")
	// ErrReadOnly: the disk is full or nearly so. 503 with Retry-After.
	ErrReadOnly = errors.New("storage is read-only")
	// ErrClosed: the engine is closed or closing. 503.
	ErrClosed = errors.New("storage is closed")
	// ErrFailed: an fsync or a log write failed; the process must be restarted. 503.
	ErrFailed = errors.New("storage has failed and must be restarted")
	// ErrLimit: a query went past a limit; wrapped by *LimitError. 422.
	ErrLimit = errors.New("query limit exceeded")
)

// LimitError says which limit a query, or what Whose names, went past.
type LimitError struct {
	What   string // "series", "samples", "concurrent queries", "response bytes"
	Limit  int64
	Flag   string // the setting that raises it
	Whose  string // "": query
	Remedy string // what helps besides the setting; "": narrow the selection
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s exceeds the limit of %d %s; %s or raise %s", cmp.Or(e.Whose, "query"), e.Limit, e.What,
		cmp.Or(e.Remedy, "narrow the selection"), e.Flag)
}

// Unwrap makes errors.Is(err, ErrLimit) true.
func (e *LimitError) Unwrap() error { return ErrLimit }

// CorruptionError names the place of damage in a file.
type CorruptionError struct {
	Path   string
	Offset int64
	Err    error // what is wrong there
}

func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s: corrupt at byte %d: %v", e.Path, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptionError) Unwrap() error { return e.Err }

// IsDamage tells whether what was read is damaged: its checksums say so, or the disk can't read it.
func IsDamage(err error) bool {
	var damage *CorruptionError
	return errors.As(err, &damage) || errors.Is(err, syscall.EIO)
}
