package api

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/shard/model"
)

// Headers of reads that follow writes.
const (
	// headerApplied is in the answer to a write; a read that sends it back sees the write.
	headerApplied = "X-Strandline-Applied"
	// headerStaleness is in the answer to a read at level stale: how many seconds its
	// data may be old.
	headerStaleness = "X-Strandline-Staleness"
)

// Fresh waits until the data is as fresh as the request asks for, for handlers beside
// the API, and returns the context to read it with. It reports whether the request asked
// for anything, so that an answer made before it will not do.
func (a *API) Fresh(ctx context.Context, rc *fasthttp.RequestCtx) (context.Context, bool, error) {
	w, err := a.freshness(&form{rc: rc})
	if err != nil {
		return ctx, false, err
	}
	asked := w.Level != "stale" || w.MaxStaleness > 0 || len(w.Applied) > 0
	ctx, err = a.await(ctx, rc, w)
	return ctx, asked, err
}

// sync waits until the data, or the metadata alone, is as fresh as the request asks for, and
// returns the context to read it with.
func (a *API) sync(ctx context.Context, f *form, meta bool) (context.Context, error) {
	w, err := a.freshness(f)
	if err != nil {
		return ctx, err
	}
	w.Metadata = meta
	return a.await(ctx, f.rc, w)
}

func (a *API) freshness(f *form) (Freshness, error) {
	w := Freshness{Level: f.get("consistency")}
	switch w.Level {
	case "":
		w.Level = a.opts.Consistency
	case "stale", "leader", "linearizable":
	default:
		return w, badParam(errors.New("want stale, leader or linearizable"), "consistency")
	}
	var err error
	if s := f.get("max_staleness"); s != "" {
		if w.MaxStaleness, err = parseDuration(s); err == nil && w.MaxStaleness <= 0 {
			err = errors.New("it must be positive")
		}
		if err != nil {
			return w, badParam(err, "max_staleness")
		}
	}
	if token := string(f.rc.Request.Header.Peek(headerApplied)); token != "" {
		if w.Applied, err = model.ParseApplied(token); err != nil {
			return w, badParam(err, headerApplied)
		}
	}
	switch s := f.get("partial"); s {
	case "", "false":
	case "true":
		w.Partial = true
	default:
		return w, badParam(errors.New("want true or false"), "partial")
	}
	return w, nil
}

func (a *API) await(ctx context.Context, rc *fasthttp.RequestCtx, w Freshness) (context.Context, error) {
	if a.opts.Sync == nil {
		return ctx, nil
	}
	ctx, age, err := a.opts.Sync(ctx, w)
	if err == nil && w.Level == "stale" {
		tellAge(rc, age)
	}
	return ctx, err
}

// tellAge says how old the data may be; nothing if that is unknown.
func tellAge(rc *fasthttp.RequestCtx, age time.Duration) {
	if age < 0 {
		rc.Response.Header.Del(headerStaleness)
		return
	}
	rc.Response.Header.Set(headerStaleness, strconv.FormatFloat(age.Seconds(), 'f', 3, 64))
}

// errNoCluster: there is nothing to say about a cluster.
var errNoCluster = errors.New("this server is a single node: give it cluster-node, and cluster-peers or cluster-join, to make it one of a cluster")

func (a *API) cluster(context.Context, *form) (*answer, error) {
	if a.opts.Cluster == nil {
		return nil, badData(errNoCluster)
	}
	return plain(a.opts.Cluster())
}

func (a *API) hashes(ctx context.Context, _ *form) (*answer, error) {
	if a.opts.Hashes == nil {
		return nil, badData(errNoCluster)
	}
	v, err := a.opts.Hashes(ctx)
	if err != nil {
		return nil, err
	}
	return plain(v)
}

// administer serves one change of the cluster, or the look at a plan for one.
func (a *API) administer(what string) handler {
	return func(ctx context.Context, f *form) (*answer, error) {
		if a.opts.Administer == nil {
			return nil, badData(errNoCluster)
		}
		v, err := a.opts.Administer(ctx, what, f.get)
		if err != nil {
			return nil, err
		}
		return plain(v)
	}
}

// errNoBackups: an operator must say where they may lie.
var errNoBackups = errors.New("backups are off: give this server a backup-dir")

func (a *API) backup(ctx context.Context, f *form) (*answer, error) {
	if a.opts.Backup == nil {
		return nil, badData(errNoBackups)
	}
	v, err := a.opts.Backup(ctx, f.get("name"))
	if err != nil {
		return nil, err
	}
	return plain(v)
}

// plain answers with v as JSON.
func plain(v any) (*answer, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return &answer{data: func(e *encoder) error { e.buf = append(e.buf, b...); return nil }}, nil
}
