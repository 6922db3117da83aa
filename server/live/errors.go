package live

import (
	"errors"
	"fmt"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/server/selector"
	"github.com/strandline-db/strandline/shard/model"
)

// Errors of this package.
var (
	// ErrBadOptions: an option is out of range.
	ErrBadOptions = errors.New("live: bad options")
	// errFull: there are as many connections as allowed. 503.
	errFull = errors.New("the server has as many live connections as it may: try again later, on another node, or raise live-max-connections")
	// errOrigin: a page from elsewhere. 403.
	errOrigin = errors.New("pages from this origin may not connect; list it in live-origins if they should")
	// errRevoked: the access rules no longer let this client in. 401, or close code 1008.
	errRevoked = errors.New("access was withdrawn: the token or user was removed or changed; connect with valid credentials")
	// errProtocol: a token as a subprotocol, and not the protocol itself. 400.
	errProtocol = errors.New(`offer the subprotocol "` + protocol + `" beside the one that carries the token`)
	// errUpgrade: a plain request to a WebSocket's path. 426.
	errUpgrade = errors.New("this is a WebSocket; for plain HTTP use /api/v1/live/sse")
	// errDuplicate: the id belongs to another subscription of the connection.
	errDuplicate = errors.New("the id is in use: unsubscribe it first")
	// errUnknownID: there is no such subscription.
	errUnknownID = errors.New("no subscription has this id: it was not begun, or has ended")
	// errWithdrawn: a subscription was given up before it began.
	errWithdrawn = errors.New("unsubscribed before it began: the write was not applied here yet")
	// errWaits: too many subscriptions wait for a write. It may be tried again.
	errWaits = fmt.Errorf("%w: too many subscriptions wait for a write here", model.ErrOverloaded)
	// errCursor: a Last-Event-ID that is not of this stream.
	errCursor = errors.New("Last-Event-ID is not one of this stream: it is the id of an event as it came, for each query a time of the last ten years in base 36, " +
		"such as mwv73z14 or mwv73z14.mwv7401s, with hyphens in between; name the same queries in the same order, or leave it out to begin anew")
	// errParam: a parameter of the URL is unknown or can't be used. 400.
	errParam = errors.New("bad parameter")
	// errApplied: the token of a write can't be read.
	errApplied = errors.New("bad applied")
)

func tooManySubs(limit int) error {
	return &model.LimitError{What: "subscriptions", Limit: int64(limit), Flag: "live-max-subscriptions", Whose: "connection",
		Remedy: "unsubscribe some, use another connection"}
}

// typeOf returns the errorType of a frame: that of the HTTP API, or "limit".
func typeOf(err error) string {
	switch {
	case errors.Is(err, frame.ErrBad), errors.Is(err, frame.ErrUnknownOp), errors.Is(err, errDuplicate),
		errors.Is(err, errUnknownID), errors.Is(err, errCursor), errors.Is(err, errParam), errors.Is(err, errApplied),
		errors.Is(err, selector.ErrNeither):
		return query.BadData.String()
	}
	switch {
	case errors.Is(err, errRevoked):
		return "unauthorized"
	case errors.Is(err, errWithdrawn):
		return query.Canceled.String()
	}
	kind := query.KindOf(err)
	if kind == query.Execution && errors.Is(err, model.ErrLimit) {
		return "limit"
	}
	return kind.String()
}
