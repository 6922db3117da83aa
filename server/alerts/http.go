package alerts

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/webhook"
	"github.com/strandline-db/strandline/shard/model"
)

// The paths that a Service answers.
const (
	pathSubscribe = "/api/v1/alerts/subscribe"
	pathCircuits  = "/api/v1/health/circuits"
)

// storeTimeout is how long a change may take to be stored.
const storeTimeout = 15 * time.Second

// view is a subscription as it is shown: without its secret, and of its URL only the origin.
type view struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Metric     string            `json:"metric,omitempty"`
	Query      string            `json:"query,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Threshold  float64           `json:"threshold"`
	Comparison string            `json:"comparison"`
	For        span              `json:"for"`
	Interval   span              `json:"interval"`
	Method     string            `json:"notification_method"`
	Target     string            `json:"target"`
	Signed     bool              `json:"signed"`
	Created    time.Time         `json:"created"`
	State      string            `json:"state"` // inactive, pending or firing
	Alerts     []alert           `json:"alerts"`
	Queued     int               `json:"queuedMessages"`
	Dropped    uint64            `json:"droppedMessages"`
	Evaluated  time.Time         `json:"lastEvaluation,omitzero"` // on the node that evaluates
	LastError  string            `json:"lastError,omitempty"`
}

// Handle answers the request if its path is one of the service's; false: it is not.
func (s *Service) Handle(rc *fasthttp.RequestCtx) bool {
	path := string(rc.Path())
	if path == pathCircuits {
		s.circuits(rc)
		return true
	}
	rest, ok := strings.CutPrefix(path, pathSubscribe)
	if !ok || rest != "" && rest[0] != '/' {
		return false
	}
	id := strings.TrimPrefix(rest, "/")
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	switch {
	case rc.IsOptions():
		rc.SetStatusCode(fasthttp.StatusNoContent)
	case rc.IsGet() && id == "":
		s.list(rc)
	case rc.IsGet():
		s.get(rc, id)
	case rc.IsPost() && id == "":
		s.post(ctx, rc)
	case rc.IsDelete() && id != "":
		s.delete(ctx, rc, id)
	default:
		allow := "GET, DELETE, OPTIONS"
		if id == "" {
			allow = "GET, POST, OPTIONS"
		}
		rc.Error("Method Not Allowed\n", fasthttp.StatusMethodNotAllowed)
		rc.Response.Header.Set("Allow", allow)
	}
	return true
}

func (s *Service) list(rc *fasthttp.RequestCtx) {
	views := []view{}
	for _, rec := range s.o.Store.Records(prefixSubscription) {
		if sub, err := decode(&rec); err == nil {
			views = append(views, s.show(sub))
		}
	}
	succeed(rc, fasthttp.StatusOK, map[string]any{"subscriptions": views})
}

func (s *Service) get(rc *fasthttp.RequestCtx, id string) {
	rec, ok := one(s.o.Store, prefixSubscription+id)
	if !ok {
		fail(rc, ErrNotFound)
		return
	}
	sub, err := decode(&rec)
	if err != nil {
		fail(rc, err)
		return
	}
	succeed(rc, fasthttp.StatusOK, s.show(sub))
}

func (s *Service) post(ctx context.Context, rc *fasthttp.RequestCtx) {
	sub, err := s.create(ctx, rc.PostBody())
	if errors.Is(err, webhook.ErrForbiddenAddress) {
		s.o.Audit.Warn("denied", "method", string(rc.Method()), "path", string(rc.Path()), "remote", rc.RemoteAddr().String(), "err", err)
	}
	if err != nil {
		fail(rc, err)
		return
	}
	rc.Response.Header.Set("Location", pathSubscribe+"/"+sub.ID)
	succeed(rc, fasthttp.StatusCreated, s.show(sub))
}

func (s *Service) delete(ctx context.Context, rc *fasthttp.RequestCtx, id string) {
	if err := s.remove(ctx, id); err != nil {
		fail(rc, err)
		return
	}
	succeed(rc, fasthttp.StatusOK, map[string]string{"id": id})
}

func (s *Service) show(sub *Subscription) view {
	v := view{ID: sub.ID, Name: sub.title(), Metric: sub.Metric, Query: sub.Query, Labels: sub.Labels, Threshold: sub.Threshold,
		Comparison: sub.Comparison, For: sub.For, Interval: sub.Interval, Method: sub.Method, Signed: sub.Secret != "",
		Created: sub.Created, State: "inactive", Alerts: []alert{}, Queued: len(webhook.Queued(s.o.Store, sub.ID))}
	if u, err := url.Parse(sub.URL); err == nil {
		v.Target = webhook.Origin(u)
	}
	if rec, ok := one(s.o.Store, prefixState+sub.ID); ok {
		var st state
		if err := json.Unmarshal(rec.Value, &st); err == nil {
			v.Alerts, v.Dropped = st.Alerts, st.Dropped
		}
	}
	for _, a := range v.Alerts {
		if v.State != "firing" {
			v.State = a.State
		}
	}
	if r := s.runnerOf(sub.ID); r != nil {
		var err error
		if v.Evaluated, err = r.last(); err != nil {
			v.LastError = err.Error()
		}
	}
	return v
}

func (s *Service) circuits(rc *fasthttp.RequestCtx) {
	if !rc.IsGet() {
		rc.Error("Method Not Allowed\n", fasthttp.StatusMethodNotAllowed)
		rc.Response.Header.Set("Allow", "GET")
		return
	}
	succeed(rc, fasthttp.StatusOK, map[string]any{"delivers": s.leads(), "circuits": s.hooks.Circuits()})
}

func succeed(rc *fasthttp.RequestCtx, code int, data any) {
	write(rc, code, map[string]any{"status": "success", "data": data})
}

// fail answers with an error, in Prometheus' envelope.
func fail(rc *fasthttp.RequestCtx, err error) {
	code, kind := fasthttp.StatusInternalServerError, "internal"
	for _, c := range []struct {
		is   error
		code int
		kind string
	}{
		{ErrBadRequest, 400, "bad_data"}, {webhook.ErrBadURL, 400, "bad_data"}, {webhook.ErrForbiddenAddress, 400, "bad_data"},
		{ErrTooLarge, 413, "bad_data"}, {ErrTooMany, 422, "execution"}, {ErrNotFound, 404, "not_found"},
		{model.ErrUnavailable, 503, "unavailable"}, {model.ErrOverloaded, 503, "unavailable"}, {model.ErrReadOnly, 503, "unavailable"},
		{model.ErrClosed, 503, "unavailable"}, {model.ErrFailed, 503, "unavailable"}, {context.DeadlineExceeded, 503, "unavailable"},
	} {
		if errors.Is(err, c.is) {
			code, kind = c.code, c.kind
			break
		}
	}
	write(rc, code, map[string]any{"status": "error", "errorType": kind, "error": err.Error()})
	if code == fasthttp.StatusServiceUnavailable {
		rc.Response.Header.Set("Retry-After", "1")
	}
}

func write(rc *fasthttp.RequestCtx, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		rc.Error(`{"status":"error","errorType":"internal","error":"the answer can't be encoded"}`, fasthttp.StatusInternalServerError)
		return
	}
	rc.SetStatusCode(code)
	rc.SetContentType("application/json")
	rc.SetBody(b)
}
