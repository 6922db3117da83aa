package query

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/promql"
	"github.com/strandline-db/strandline/shard/model"
)

// ErrNoReader: New was given no storage.
var ErrNoReader = errors.New("query: no reader given")

// ErrKilled is the cause of the end of a query that Kill ended.
var ErrKilled = errors.New("query was killed")

// Kind says whose fault a failed query is, in the words of the HTTP API.
type Kind uint8

// The kinds, with their status codes in the HTTP API.
const (
	Execution   Kind = iota // 422
	BadData                 // 400
	Canceled                // 499
	Timeout                 // 503
	Internal                // 500
	Unavailable             // 503, worth a retry
	Conflict                // 409
)

// String returns the errorType of the HTTP API.
func (k Kind) String() string {
	switch k {
	case BadData:
		return "bad_data"
	case Canceled:
		return "canceled"
	case Timeout:
		return "timeout"
	case Internal:
		return "internal"
	case Unavailable:
		return "unavailable"
	case Conflict:
		return "conflict"
	default:
		return "execution"
	}
}

// Error is a failed query: the cause, whose text it shows, and its kind.
type Error struct {
	Kind Kind
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf sorts any error of the engine or the storage into a kind. Unknown
// errors are Execution, as in Prometheus.
func KindOf(err error) Kind {
	var typed *Error
	if errors.As(err, &typed) {
		return typed.Kind
	}
	switch {
	case errors.Is(err, model.ErrOverloaded), errors.Is(err, model.ErrUnavailable), errors.Is(err, model.ErrClosed), errors.Is(err, model.ErrFailed):
		return Unavailable
	case errors.Is(err, model.ErrLimit):
		return Execution
	case isType[promql.ErrQueryCanceled](err), errors.Is(err, context.Canceled):
		return Canceled
	case isType[promql.ErrQueryTimeout](err), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case isType[promql.ErrStorage](err), isType[*model.CorruptionError](err):
		return Internal
	}
	return Execution
}

func isType[T error](err error) bool {
	_, ok := errors.AsType[T](err)
	return ok
}
