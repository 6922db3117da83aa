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
	noGet  bool // GET is not allowed
	reads  bool // stored data
	meta   bool // of it the metadata of metrics alone
	// only are the parameters that there are, where one that is not known is refused. Where
	// Prometheus has the path it is not, as there; nil.
	only []string
}

// New returns an API over r and q. The options are completed in place; options
// that Validate refuses are the caller's to check.
func New(r model.Reader, q *query.Engine, opts *Options) *API {
	a := &API{r: r, q: q, opts: opts.EnsureDefaults()}
	a.base, a.stop = context.WithCancelCause(context.Background())
	a.routes = map[string]route{
		"query":              {handle: a.query, post: true, reads: true},
		"query_range":        {handle: a.queryRange, post: true, reads: true},
		"query_exemplars":    {handle: a.exemplars, post: true, reads: true},
		"format_query":       {handle: a.formatQuery, post: true},
		"parse_query":        {handle: a.parseQuery, post: true},
		"labels":             {handle: a.labelNames, post: true, reads: true},
		"series":             {handle: a.series, post: true, reads: true},
		"metadata":           {handle: a.metadata, reads: true, meta: true},
		"status/buildinfo":   {handle: a.buildInfo},
		"status/config":      {handle: a.config},
		"status/flags":       {handle: a.flags},
		"status/runtimeinfo": {handle: a.runtimeInfo},
		"cluster/status":     {handle: a.cluster, post: true, only: []string{}},
		"admin/cluster/hash": {handle: a.hashes, post: true, reads: true, only: []string{"consistency", "max_staleness", "partial"}},
		"admin/cluster/plan": {handle: a.administer("plan"), post: true, only: []string{"node", "drained"}},
		"admin/backup":       {handle: a.backup, post: true, noGet: true, only: []string{"name"}},
	}
	for what, params := range map[string][]string{
		"move": {"shard", "from", "to"}, "transfer-leader": {"shard", "node"}, "rebalance": {"plan"}, "drain": {"node", "plan"}, "add": {"node", "plan"},
		"remove": {"node", "force"}, "pause": {}, "resume": {}, "cancel": {},
	} {
		a.routes["admin/cluster/"+what] = route{handle: a.administer(what), post: true, noGet: true, only: params}
	}
	if a.opts.TSDB != nil {
		a.routes["status/tsdb"] = route{handle: a.tsdb}
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
	case rc.IsGet() && !rt.noGet, rc.IsPost() && rt.post:
		a.serve(rc, f, rt)
	default:
		allow := "GET, OPTIONS"
		if rt.post {
			allow = "GET, OPTIONS, POST"
		}
		if rt.noGet {
			allow = "OPTIONS, POST"
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
	err := f.known(rt.only)
	if err == nil && rt.reads {
		ctx, err = a.sync(ctx, f, rt.meta)
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
	if a.opts.Age != nil && len(rc.Response.Header.Peek(headerStaleness)) > 0 {
		tellAge(rc, a.opts.Age(ctx))
	}
	if ans != nil && a.opts.Warnings != nil {
		ans.warnings = a.opts.Warnings(ctx)
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
