package ingest

import "errors"

var (
	// ErrBadOptions: an option is out of its range.
	ErrBadOptions = errors.New("bad ingest options")
	// ErrMalformed: bytes that are not what they claim to be. 400.
	ErrMalformed = errors.New("malformed request")
	// ErrTooLarge: a body that is, or unfolds to, more than is allowed. 413.
	ErrTooLarge = errors.New("request is too large")
	// ErrUnsupported: a content type or encoding that is not spoken here. 415.
	ErrUnsupported = errors.New("unsupported media type")
)
