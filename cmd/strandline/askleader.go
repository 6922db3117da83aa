package main

import (
	"context"
	"log/slog"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/cluster"
	"github.com/strandline-db/strandline/server/rules"
)

// askLeader answers for the rules from the node that evaluates them, which leads the
// metadata's group: only there their states are known. Who asks was checked by the node
// that was asked. When that node can't be reached, this one says what it knows, with
// the API's warning.
type askLeader struct {
	node *cluster.Node
	api  *rules.API
	log  *slog.Logger
}

// asksLeader tells which paths have their answers there.
func asksLeader(path string) bool { return path == "/api/v1/rules" || path == "/api/v1/alerts" }

// Handle answers the request if its path is one of the rules'.
func (a *askLeader) Handle(rc *fasthttp.RequestCtx) bool {
	if !rc.IsGet() || !asksLeader(string(rc.Path())) || a.node.LeadsMetadata() {
		return a.api.Handle(rc)
	}
	status, body, err := a.node.AskMetadataLeader(context.Background(), string(rc.Path()), string(rc.URI().QueryString()))
	if err != nil {
		a.log.Warn("the node that evaluates the rules can't be asked", "path", string(rc.Path()), "err", err)
		return a.api.Handle(rc)
	}
	rc.SetStatusCode(status)
	rc.SetContentType("application/json")
	rc.SetBody(body)
	return true
}

// answer is the other side of Handle: a cluster.Answerer.
func (a *askLeader) answer(_ context.Context, path, query string) (int, []byte) {
	if !asksLeader(path) {
		return fasthttp.StatusNotFound, nil
	}
	var req fasthttp.Request
	req.SetRequestURI(path + "?" + query)
	var rc fasthttp.RequestCtx
	rc.Init(&req, nil, nil)
	a.api.Handle(&rc)
	return rc.Response.StatusCode(), rc.Response.Body()
}
