package alerts

import "errors"

// Errors of this package, with their HTTP status.
var (
	// ErrBadOptions: an option can't be used.
	ErrBadOptions = errors.New("bad alerts options")
	// ErrBadRequest: a subscription can't be read or makes no sense. 400.
	ErrBadRequest = errors.New("bad subscription")
	// ErrTooLarge: the body is larger than MaxBody. 413.
	ErrTooLarge = errors.New("the body of a subscription is too large")
	// ErrTooMany: there are as many subscriptions as may be. 422.
	ErrTooMany = errors.New("limit of alert subscriptions reached; delete some or raise alert-max-subscriptions")
	// ErrNotFound: there is no such subscription. 404.
	ErrNotFound = errors.New("no such alert subscription; GET /api/v1/alerts/subscribe lists all")
	// errTooBig: the alerts of a subscription don't fit in its record.
	errTooBig = errors.New("too many alerts, or too long labels: aggregate the query")
)
