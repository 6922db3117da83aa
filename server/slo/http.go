package slo

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/server/cache"
	"github.com/strandline-db/strandline/wal/clock"
)

// Path of the endpoint.
const Path = "/api/v1/slo"

// life is how long an answer is given again.
const life = time.Second

// Options configure an API. Nil and zero values mean the defaults named here.
type Options struct {
	Timeout    time.Duration         // of an answer; default 2m
	Registerer prometheus.Registerer // nil: no metrics
	Clock      clock.Clock           // nil: the machine's
}

// API answers /api/v1/slo.
type API struct {
	q          *query.Engine
	o          Options
	cache      *cache.Cache
	objectives atomic.Pointer[[]Objective]
}

// NewAPI returns an API without objectives; see Set.
func NewAPI(q *query.Engine, o *Options) (*API, error) {
	a := &API{q: q}
	if o != nil {
		a.o = *o
	}
	if a.o.Timeout == 0 {
		a.o.Timeout = 2 * time.Minute
	}
	if a.o.Clock == nil {
		a.o.Clock = clock.Real{}
	}
	a.Set(nil)
	var err error
	a.cache, err = cache.New(&cache.Options{Name: "slo", Life: life, Registerer: a.o.Registerer, Clock: a.o.Clock})
	return a, err
}

// Set replaces the objectives, which must be valid and are the API's from now on.
func (a *API) Set(objectives []Objective) { a.objectives.Store(&objectives) }

// Close ends what is being computed. It may be called more than once.
func (a *API) Close() error { return a.cache.Close() }

// Handle answers the request if its path is the API's; false: it is not.
func (a *API) Handle(rc *fasthttp.RequestCtx) bool {
	if string(rc.Path()) != Path {
		return false
	}
	switch {
	case rc.IsOptions():
		rc.SetStatusCode(fasthttp.StatusNoContent)
	case rc.IsGet(), rc.IsHead():
		body, err := a.cache.Get(context.Background(), nil, a.answer)
		if err != nil {
			api.Fail(rc, err)
			break
		}
		rc.SetContentType("application/json")
		rc.Response.SetBodyRaw(body)
	default:
		api.NotAllowed(rc, "GET, HEAD, OPTIONS")
	}
	return true
}

// answer computes the state of all objectives at one moment.
func (a *API) answer(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, a.o.Timeout)
	defer cancel()
	now := a.o.Clock.Now()
	objectives := *a.objectives.Load()
	list := make([]Status, 0, len(objectives))
	if len(objectives) > 0 {
		recorded, err := recordedRatios(ctx, a.q, now)
		if err != nil {
			return nil, err
		}
		for i := range objectives {
			list = append(list, a.status(ctx, &objectives[i], recorded.of(&objectives[i]), now))
		}
	}
	return json.Marshal(map[string]any{"status": "success", "data": map[string]any{"time": now.UTC(), "objectives": list}})
}
