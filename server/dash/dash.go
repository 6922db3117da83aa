package dash

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/server/cache"
	"github.com/strandline-db/strandline/server/selector"
	"github.com/strandline-db/strandline/shard/model"
)

// Paths of the two endpoints.
const (
	PathRealtime   = "/api/v1/metrics/realtime"
	PathHistorical = "/api/v1/metrics/historical"
)

// reductions are the ways to fold several series into one value.
const reductions = "sum, avg, min, max"

// Dash answers the dashboard endpoints. It is safe for concurrent use.
type Dash struct {
	r     model.Reader
	q     *query.Engine
	o     *Options
	cache *cache.Cache
	start time.Time
}

// New returns a Dash over r and q. The options are completed in place.
func New(r model.Reader, q *query.Engine, o *Options) (*Dash, error) {
	o = o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c, err := cache.New(&cache.Options{Name: "dashboard", Life: o.CacheLife, MaxBytes: o.CacheBytes, Registerer: o.Registerer, Clock: o.Clock})
	if err != nil {
		return nil, err
	}
	return &Dash{r: r, q: q, o: o, cache: c, start: o.Clock.Now()}, nil
}

// Close ends the computations that run, with model.ErrClosed, and those to come. It
// may be called more than once.
func (d *Dash) Close() error { return d.cache.Close() }

// request is what a request asks: the key of its answer and how to make that, but for
// the closing brace; warnings are of the evaluation.
type request struct {
	key     []byte
	compute func(ctx context.Context, e *encoder) (warnings []string, err error)
}

// Handle answers the request if its path is one of the two; false: it is not, and
// nothing was done.
func (d *Dash) Handle(rc *fasthttp.RequestCtx) bool {
	var parse func(*fasthttp.Args) (*request, error)
	switch string(rc.Path()) {
	case PathRealtime:
		parse = d.realtime
	case PathHistorical:
		parse = d.historical
	default:
		return false
	}
	switch {
	case rc.IsOptions():
		rc.SetStatusCode(fasthttp.StatusNoContent)
	case rc.IsGet(), rc.IsHead():
		if err := d.serve(rc, parse); err != nil {
			if query.KindOf(err) == query.Internal {
				d.o.Logger.Error("request failed", "path", string(rc.Path()), "err", err)
			}
			api.Fail(rc, err)
		}
	default:
		api.NotAllowed(rc, "GET, HEAD, OPTIONS")
	}
	return true
}

func (d *Dash) serve(rc *fasthttp.RequestCtx, parse func(*fasthttp.Args) (*request, error)) error {
	req, err := parse(rc.QueryArgs())
	if err != nil {
		return err
	}
	synced, asked, err := d.fresh(rc)
	if err != nil {
		return err
	}
	body, hit := []byte(nil), false
	if !asked {
		body, hit = d.cache.Hit(req.key)
	}
	if !hit {
		if body, err = d.compute(rc, synced, req, asked); err != nil {
			return err
		}
	}
	rc.SetContentType("application/json")
	rc.Response.Header.Set("Cache-Control", "no-store")
	rc.Response.SetBodyRaw(body)
	return nil
}

// fresh waits as long as a computation may take.
func (d *Dash) fresh(rc *fasthttp.RequestCtx) (synced context.Context, asked bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.o.Timeout)
	defer cancel()
	return d.o.Fresh(ctx, rc)
}

// readContext ends as one context does and has the values of another, by which the reader
// knows how fresh the data must be.
type readContext struct {
	context.Context
	synced context.Context
}

// Value implements context.Context.
func (c readContext) Value(key any) any {
	if v := c.synced.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}

// compute makes the answer, or waits for one that is being made. It ends when the
// client leaves and nobody else waits.
func (d *Dash) compute(rc *fasthttp.RequestCtx, synced context.Context, req *request, alone bool) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer api.Watch(rc.Conn(), d.o.WatchInterval, func() { cancel(context.Canceled) })()
	make := func(ctx context.Context) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, d.o.Timeout)
		defer cancel()
		e := &encoder{max: d.o.MaxResponseBytes}
		warnings, err := req.compute(readContext{ctx, context.WithoutCancel(synced)}, e)
		if err != nil {
			return nil, err
		}
		return e.buf, e.finish(append(warnings, d.o.Warnings(synced)...))
	}
	if alone {
		return d.cache.Bypass(ctx, make)
	}
	return d.cache.Get(ctx, req.key, make)
}

// selector reads a metric's name, or a selector in its place.
func (d *Dash) selector(param, s string) (*parser.VectorSelector, error) {
	vs, err := selector.Parse(d.q.Parser(), s)
	if err != nil {
		return nil, api.BadParam(param, fmt.Errorf("%w; ask expressions of /api/v1/query", err))
	}
	return vs, nil
}

// oneOf reads a parameter that has a few values, the first of which is the default.
func oneOf(args *fasthttp.Args, name, list string) (string, error) {
	v := string(args.Peek(name))
	values := strings.Split(list, ", ")
	if v == "" {
		return values[0], nil
	}
	if !slices.Contains(values, v) {
		return "", api.BadParam(name, fmt.Errorf("%q is none of %s", v, list))
	}
	return v, nil
}

// newKey returns a key that no other parts give: each is preceded by its length.
func newKey(parts ...string) []byte {
	var key []byte
	for _, p := range parts {
		key = binary.AppendUvarint(key, uint64(len(p)))
		key = append(key, p...)
	}
	return key
}
