package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// statusClientClosed is what nginx made up for a client that has left.
const statusClientClosed = 499

// errTruncated is a warning, in Prometheus' words.
var errTruncated = errors.New("results truncated due to limit")

func badData(err error) error { return &query.Error{Kind: query.BadData, Err: err} }

func badParam(err error, name string) error {
	return badData(fmt.Errorf("invalid parameter %q: %w", name, err))
}

// fault gives err its kind; an end by Close is not the client's doing.
func (a *API) fault(ctx context.Context, err error) *query.Error {
	kind := query.KindOf(err)
	if kind == query.Canceled && errors.Is(context.Cause(ctx), model.ErrClosed) {
		return &query.Error{Kind: query.Unavailable, Err: model.ErrClosed}
	}
	return &query.Error{Kind: kind, Err: err}
}

func statusOf(k query.Kind) int {
	switch k {
	case query.BadData:
		return fasthttp.StatusBadRequest
	case query.Canceled:
		return statusClientClosed
	case query.Timeout, query.Unavailable:
		return fasthttp.StatusServiceUnavailable
	case query.Internal:
		return fasthttp.StatusInternalServerError
	default:
		return fasthttp.StatusUnprocessableEntity
	}
}

func (a *API) respondError(rc *fasthttp.RequestCtx, e *encoder, err *query.Error) {
	e.buf = append(e.buf[:0], `{"status":"error","errorType":`...)
	e.html(err.Kind.String())
	e.raw(`,"error":`)
	e.html(err.Error())
	e.raw(`}`)
	rc.SetContentType("application/json")
	rc.SetStatusCode(statusOf(err.Kind))
	if errors.Is(err, model.ErrOverloaded) || errors.Is(err, model.ErrUnavailable) || errors.Is(err, model.ErrReadOnly) {
		rc.Response.Header.Set("Retry-After", "1")
	}
	if err.Kind == query.Internal {
		a.opts.Logger.Error("request failed", "path", string(rc.Path()), "err", err.Err)
	}
	a.body(rc, e)
}
