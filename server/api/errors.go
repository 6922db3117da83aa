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
	case query.Conflict:
		return fasthttp.StatusConflict
	default:
		return fasthttp.StatusUnprocessableEntity
	}
}

func (a *API) respondError(rc *fasthttp.RequestCtx, e *encoder, err *query.Error) {
	e.fail(rc, err)
	if err.Kind == query.Internal {
		a.opts.Logger.Error("request failed", "path", string(rc.Path()), "err", err.Err)
	}
	a.body(rc, e)
}

// fail writes the envelope of an error into the encoder, and the answer's head.
func (e *encoder) fail(rc *fasthttp.RequestCtx, err *query.Error) {
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
}

// Fail answers with the error in Prometheus' envelope and its status code, for
// handlers beside the API.
func Fail(rc *fasthttp.RequestCtx, err error) {
	var e encoder
	e.fail(rc, &query.Error{Kind: query.KindOf(err), Err: err})
	rc.Response.SetBodyRaw(e.buf)
}

// BadParam is the error of a parameter that can't be used: 400.
func BadParam(name string, err error) error { return badParam(err, name) }

// NotAllowed answers 405 to a method that is none of allow, a list such as "GET, OPTIONS".
func NotAllowed(rc *fasthttp.RequestCtx, allow string) {
	rc.Response.Header.Set("Allow", allow)
	rc.Response.Header.Set("X-Content-Type-Options", "nosniff")
	rc.SetContentType("text/plain; charset=utf-8")
	rc.SetStatusCode(fasthttp.StatusMethodNotAllowed)
	rc.SetBodyString("Method Not Allowed\n")
}
