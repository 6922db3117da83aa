package rules

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	upstream "github.com/prometheus/prometheus/rules"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/valyala/fasthttp"
)

// retriever shows upstream's groups to upstream's API.
type retriever struct{ th *theirs }

func (r retriever) RuleGroups() []*upstream.Group {
	list := slices.Clone(r.th.groups)
	slices.SortFunc(list, func(a, b *upstream.Group) int { return strings.Compare(a.File()+";"+a.Name(), b.File()+";"+b.Name()) })
	return list
}

func (r retriever) AlertingRules() (list []*upstream.AlertingRule) {
	for _, g := range r.th.groups {
		list = append(list, g.AlertingRules()...)
	}
	return list
}

func upstreamAPI(th *theirs) http.Handler {
	a := v1.NewAPI(nil, nil, nil, nil, nil, nil, nil, func() config.Config { return config.Config{} }, map[string]string{}, v1.GlobalURLOptions{},
		func(h http.HandlerFunc) http.HandlerFunc { return h }, nil, "", false, false, 0,
		slog.New(slog.DiscardHandler), func(context.Context) v1.RulesRetriever { return retriever{th} }, 0, 0, 0, false, nil, nil, &v1.PrometheusVersion{}, nil, nil, nil, nil, nil,
		false, nil, false, false, false, 5*time.Minute, false, false, nil, nil, v1.OpenAPIOptions{}, th.opts.Parser, false, 0)
	r := route.New().WithPrefix("/api/v1")
	a.Register(r)
	return r
}

// TestAPISameAsUpstream compares our answers with those of upstream's API over upstream's
// manager, which has seen the same data.
func TestAPISameAsUpstream(t *testing.T) {
	const file = "testdata/oracle.yml"
	o, th := newOurs(t), newTheirs(t)
	w, ts := newWorld(3), time.Unix(1_700_000_000, 0).UTC()
	sides := []side{o, th}
	for i := range 30 {
		ts = ts.Add(oracleStep)
		for _, s := range sides {
			if i == 0 {
				s.start(file)
			}
		}
		if i > 0 { // nothing is evaluated at first
			w.step(sides, ts)
		}
		for _, s := range sides {
			if i > 0 {
				s.evaluate(ts)
			}
			if i == 2 {
				s.restore(ts)
			}
		}
		if i == 0 || i == 17 || i == 29 {
			compareAPIs(t, o, upstreamAPI(th))
		}
	}
}

func compareAPIs(t *testing.T, o *ours, theirs http.Handler) {
	t.Helper()
	m := &Manager{o: o.o}
	m.mu.groups = map[string]*running{}
	for _, g := range o.groups {
		m.mu.groups[g.spec.Key()] = &running{group: g}
	}
	api := NewAPI(m, o.engine.Parser(), func() []string { return nil })
	token := ""
	for _, path := range []string{"alerts", "rules", "rules?type=alert", "rules?type=record", "rules?type=x", "rules?rule_name[]=Down&rule_name[]=nan",
		"rules?rule_group[]=odd&file[]=testdata/oracle.yml", "rules?file[]=x", "rules?match[]={severity=\"page\"}&match[]={from=\"state\"}", "rules?match[]={", "rules?match[]={x=\"\"}",
		"rules?exclude_alerts=true", "rules?exclude_alerts=maybe", "rules?group_limit=2", "rules?group_limit=0", "rules?group_limit=x", "rules?group_next_token=x",
		"rules?group_limit=1&group_next_token=x", "rules?group_limit=1&group_next_token=TOKEN"} {
		path = strings.Replace(path, "TOKEN", token, 1)
		rc := &fasthttp.RequestCtx{}
		rc.Request.SetRequestURI("/api/v1/" + path)
		if !api.Handle(rc) {
			t.Fatalf("%s is not handled", path)
		}
		rec := httptest.NewRecorder()
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.URL.Path, req.URL.RawQuery, _ = strings.Cut("/api/v1/"+path, "?")
		theirs.ServeHTTP(rec, req)
		want, err := io.ReadAll(rec.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		if code := rc.Response.StatusCode(); code != rec.Code {
			t.Errorf("%s: status %d, upstream's %d", path, code, rec.Code)
		}
		got, wanted := normal(t, rc.Response.Body()), normal(t, want)
		if !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s:\nours   %s\ntheirs %s", path, rc.Response.Body(), want)
		}
		if data, ok := wanted["data"].(map[string]any); ok && data["groupNextToken"] != nil {
			token = fmt.Sprint(data["groupNextToken"])
		}
	}
}

// normal reads an answer and takes out what depends on the machine's clock.
func normal(t *testing.T, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	strip(v)
	return v
}

func strip(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "evaluationTime")
		if s, ok := v["lastEvaluation"].(string); ok {
			v["lastEvaluation"] = strings.HasPrefix(s, "0001")
		}
		if list, ok := v["alerts"].([]any); ok { // upstream's are in random order
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
		for _, x := range v {
			strip(x)
		}
	case []any:
		for _, x := range v {
			strip(x)
		}
	}
}
