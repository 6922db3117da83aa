package api

import (
	"context"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/shard/model"
)

// Prefix is the path below which an API answers.
const Prefix = "/api/v1/"

// API answers the read endpoints. It is safe for concurrent use.
type API struct {
	r      model.Reader
	q      *query.Engine
	opts   *Options
	routes map[string]route
	base   context.Context
	stop   context.CancelCauseFunc

	encoders sync.Pool // *encoder
}

// handler answers a request: with an encoder of the data, or an error. A nil
// encoder and no error is 204.
type handler func(ctx context.Context, f *form) (*answer, error)

type route struct {
	handle handler
	post   bool // POST is allowed beside GET
	reads  bool // stored data
}

// New returns an API over r and q. The options are completed in place; options
// that Validate refuses are the caller's to check.
func New(r model.Reader, q *query.Engine, opts *Options) *API {
	a := &API{r: r, q: q, opts: opts.EnsureDefaults()}
	a.base, a.stop = context.WithCancelCause(context.Background())
	a.routes = map[string]route{
		"query":              {a.query, true, true},
		"query_range":        {a.queryRange, true, true},
		"query_exemplars":    {a.exemplars, true, true},
		"format_query":       {a.formatQuery, true, false},
		"parse_query":        {a.parseQuery, true, false},
		"labels":             {a.labelNames, true, true},
		"series":             {a.series, true, true},
		"metadata":           {a.metadata, false, true},
		"status/buildinfo":   {a.buildInfo, false, false},
		"status/config":      {a.config, false, false},
		"status/flags":       {a.flags, false, false},
		"status/runtimeinfo": {a.runtimeInfo, false, false},
		"cluster/status":     {a.cluster, true, false},
		"admin/cluster/hash": {a.hashes, true, true},
	}
	if a.opts.TSDB != nil {
		a.routes["status/tsdb"] = route{a.tsdb, false, false}
	}
	return a
}

// Close ends the queries that run, with model.ErrClosed, and those to come. It
// may be called more than once.
func (a *API) Close() error {
	a.stop(model.ErrClosed)
	return nil
}

// Handle answers the request if its path is one of the API's; false: it is not,
// and nothing was done.
func (a *API) Handle(rc *fasthttp.RequestCtx) bool {
	rest, ok := strings.CutPrefix(string(rc.Path()), Prefix)
	if !ok {
		return false
	}
	f := &form{rc: rc}
	rt, ok := a.routes[rest]
	if name, isLabel := labelOf(rest); !ok && isLabel {
		rt, ok = route{handle: func(ctx context.Context, f *form) (*answer, error) {
			return a.labelValues(ctx, name, f)
		}, reads: true}, true
	}
	if !ok {
		return false
	}
	switch {
	case rc.IsOptions():
		rc.SetStatusCode(fasthttp.StatusNoContent)
	case rc.IsGet(), rc.IsPost() && rt.post:
		a.serve(rc, f, rt)
	default:
		allow := "GET, OPTIONS"
		if rt.post {
			allow = "GET, OPTIONS, POST"
		}
		NotAllowed(rc, allow)
	}
	return true
}

func labelOf(rest string) (string, bool) {
	name, ok := strings.CutPrefix(rest, "label/")
	if !ok {
		return "", false
	}
	name, ok = strings.CutSuffix(name, "/values")
	return name, ok && name != "" && !strings.Contains(name, "/")
}

func (a *API) serve(rc *fasthttp.RequestCtx, f *form, rt route) {
	ctx, cancel := context.WithCancelCause(a.base)
	unwatch := Watch(rc.Conn(), a.opts.WatchInterval, func() { cancel(context.Canceled) })
	defer cancel(nil)
	defer unwatch()
	var ans *answer
	var err error
	if rt.reads {
		err = a.sync(ctx, f)
	}
	if err == nil {
		ans, err = rt.handle(ctx, f)
	}
	if ans != nil && ans.done != nil {
		defer ans.done()
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err == nil && ans == nil {
		rc.SetStatusCode(fasthttp.StatusNoContent)
		return
	}
	e := a.newEncoder()
	defer a.free(e)
	if err == nil {
		err = e.envelope(ans)
	}
	if err != nil {
		a.respondError(rc, e, a.fault(ctx, err))
		return
	}
	rc.SetContentType("application/json")
	a.body(rc, e)
}
