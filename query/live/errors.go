package live

import (
	"errors"
	"fmt"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// ErrNil: New lacks a part to work with.
var ErrNil = errors.New("live: feeder, reader and engine must be given")

// ErrClosed ends the subscriptions of a hub that closes. It is model.ErrClosed: the
// client reconnects elsewhere.
var ErrClosed = model.ErrClosed

// badData is a request that can't be served, for ever.
func badData(format string, args ...any) error {
	return &query.Error{Kind: query.BadData, Err: fmt.Errorf(format, args...)}
}

// full is a limit of the server that others may make room below.
func full(what string, limit int, flag string) error {
	return fmt.Errorf("%w: %w", model.ErrOverloaded, &model.LimitError{What: what, Limit: int64(limit), Flag: flag,
		Whose: "server", Remedy: "subscribe again later, on another node,"})
}

func tooManySeries(limit int) error {
	return &query.Error{Kind: query.Execution, Err: &model.LimitError{What: "series", Limit: int64(limit), Flag: "live-max-series"}}
}
