package rules

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"
)

// API answers /api/v1/rules, /api/v1/alerts and /api/v1/alertmanagers as Prometheus
// does. It is safe for concurrent use.
type API struct {
	m      *Manager
	parser parser.Parser
	// receivers returns the URLs of the Alertmanagers that are told.
	receivers func() []string
}

// NewAPI returns an API over m.
func NewAPI(m *Manager, p parser.Parser, receivers func() []string) *API {
	return &API{m, p, receivers}
}

// Handle answers the request if its path is one of the API's; false: it is not.
func (a *API) Handle(rc *fasthttp.RequestCtx) bool {
	var data any
	var err error
	var answer func(*fasthttp.Args) (any, error)
	switch string(rc.Path()) {
	case "/api/v1/rules":
		answer = a.rules
	case "/api/v1/alerts":
		answer = func(*fasthttp.Args) (any, error) { return a.alerts(), nil }
	case "/api/v1/alertmanagers":
		answer = func(*fasthttp.Args) (any, error) { return a.alertmanagers(), nil }
	default:
		return false
	}
	if !rc.IsGet() {
		rc.Response.Header.Set("Allow", "GET, OPTIONS")
		rc.Error("Method Not Allowed\n", fasthttp.StatusMethodNotAllowed)
		if rc.IsOptions() {
			rc.SetStatusCode(fasthttp.StatusNoContent)
			rc.ResetBody()
		}
		return true
	}
	if data, err = answer(rc.QueryArgs()); err != nil {
		write(rc, fasthttp.StatusBadRequest, map[string]any{"status": "error", "errorType": "bad_data", "error": err.Error()})
		return true
	}
	ok := map[string]any{"status": "success", "data": data}
	if !a.m.evaluates() {
		ok["warnings"] = []string{"another node of the cluster evaluates the rules: their states are known there"}
	}
	write(rc, fasthttp.StatusOK, ok)
	return true
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

// alertJSON and those below are Prometheus' JSON.
type alertJSON struct {
	Labels          labels.Labels `json:"labels"`
	Annotations     labels.Labels `json:"annotations"`
	State           string        `json:"state"`
	ActiveAt        time.Time     `json:"activeAt"`
	KeepFiringSince time.Time     `json:"keepFiringSince,omitzero"`
	Value           string        `json:"value"`
}

type groupJSON struct {
	Name           string    `json:"name"`
	File           string    `json:"file"`
	Rules          []any     `json:"rules"`
	Interval       float64   `json:"interval"`
	Limit          int       `json:"limit"`
	EvaluationTime float64   `json:"evaluationTime"`
	LastEvaluation time.Time `json:"lastEvaluation"`
}

type alertingJSON struct {
	State          string        `json:"state"`
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Duration       float64       `json:"duration"`
	KeepFiringFor  float64       `json:"keepFiringFor"`
	Labels         labels.Labels `json:"labels"`
	Annotations    labels.Labels `json:"annotations"`
	Alerts         []alertJSON   `json:"alerts"`
	Health         Health        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

type recordingJSON struct {
	Name           string        `json:"name"`
	Query          string        `json:"query"`
	Labels         labels.Labels `json:"labels"`
	Health         Health        `json:"health"`
	LastError      string        `json:"lastError,omitempty"`
	EvaluationTime float64       `json:"evaluationTime"`
	LastEvaluation time.Time     `json:"lastEvaluation"`
	Type           string        `json:"type"`
}

func alertsJSON(list []Alert) []alertJSON {
	out := make([]alertJSON, 0, len(list))
	for _, a := range list {
		out = append(out, alertJSON{a.Labels, a.Annotations, a.State.String(), a.ActiveAt, a.KeepFiringSince,
			strconv.FormatFloat(a.Value, 'e', -1, 64)})
	}
	return out
}

func (a *API) alerts() any {
	list := []alertJSON{}
	for _, g := range a.m.list() {
		for _, r := range g.rules {
			if r.alerts != nil {
				list = append(list, alertsJSON(r.alerts.Active())...)
			}
		}
	}
	return map[string]any{"alerts": list}
}

func (a *API) alertmanagers() any {
	type target struct {
		URL string `json:"url"`
	}
	active := []target{}
	for _, u := range a.receivers() {
		active = append(active, target{u})
	}
	return map[string]any{"activeAlertmanagers": active, "droppedAlertmanagers": []target{}}
}

// filter is what a request for rules wants.
type filter struct {
	alerting, recording, bare bool
	names, groups, files      []string
	selectors                 [][]*labels.Matcher
	limit                     int // of groups; 0: none
	token                     string
}

func (a *API) filterOf(args *fasthttp.Args) (f filter, err error) {
	bad := func(name string, err error) error { return fmt.Errorf("invalid parameter %q: %w", name, err) }
	typ := strings.ToLower(string(args.Peek("type")))
	if typ != "" && typ != "alert" && typ != "record" {
		return f, bad("type", fmt.Errorf("not supported value %q", typ))
	}
	f.alerting, f.recording = typ != "record", typ != "alert"
	if s := strings.ToLower(string(args.Peek("exclude_alerts"))); s != "" {
		if f.bare, err = strconv.ParseBool(s); err != nil {
			return f, bad("exclude_alerts", fmt.Errorf("error converting exclude_alerts: %w", err))
		}
	}
	f.names, f.groups, f.files = many(args, "rule_name[]"), many(args, "rule_group[]"), many(args, "file[]")
	if f.selectors, err = a.selectors(many(args, "match[]")); err != nil {
		return f, err
	}
	f.token = string(args.Peek("group_next_token"))
	limit := string(args.Peek("group_limit"))
	if f.token != "" && limit == "" {
		return f, bad("group_next_token", errors.New("group_limit needs to be present in order to paginate over the groups"))
	}
	if limit != "" {
		n, err := strconv.ParseInt(limit, 10, 32)
		if err != nil {
			return f, bad("group_limit", fmt.Errorf("group_limit needs to be a valid number: %w", err))
		}
		if n <= 0 {
			return f, bad("group_limit", errors.New("group_limit needs to be greater than 0"))
		}
		f.limit = int(n)
	}
	return f, nil
}

func many(args *fasthttp.Args, name string) []string {
	var list []string
	for _, v := range args.PeekMulti(name) {
		list = append(list, string(v))
	}
	return list
}

func (a *API) selectors(texts []string) ([][]*labels.Matcher, error) {
	sets, err := a.parser.ParseMetricSelectors(texts)
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		if !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return m != nil && !m.Matches("") }) {
			return nil, errors.New("match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}

func (a *API) rules(args *fasthttp.Args) (any, error) {
	f, err := a.filterOf(args)
	if err != nil {
		return nil, err
	}
	out := struct {
		Groups    []groupJSON `json:"groups"`
		NextToken string      `json:"groupNextToken,omitempty"`
	}{Groups: []groupJSON{}}
	found := f.limit == 0 || f.token == ""
	for _, g := range a.m.list() {
		token := pageToken(g.spec)
		if found = found || token == f.token; !found {
			continue
		}
		if !wants(f.groups, g.spec.Name) || !wants(f.files, g.spec.File) {
			continue
		}
		j := f.group(g)
		if len(j.Rules) == 0 {
			continue
		}
		if f.limit > 0 && len(out.Groups) == f.limit {
			out.NextToken = token
			break
		}
		out.Groups = append(out.Groups, j)
	}
	if !found {
		return nil, fmt.Errorf("invalid parameter %q: invalid group_next_token '%v'. were rule groups changed?", "group_next_token", f.token)
	}
	return out, nil
}

func wants(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }

func pageToken(s *GroupSpec) string {
	h := sha256.Sum256([]byte(s.Key()))
	return hex.EncodeToString(h[:])
}

func (f *filter) group(g *group) groupJSON {
	took, at := g.timing()
	j := groupJSON{Name: g.spec.Name, File: g.spec.File, Interval: g.spec.Interval.Seconds(), Limit: g.spec.Limit,
		Rules: []any{}, EvaluationTime: took.Seconds(), LastEvaluation: at}
	for _, r := range g.rules {
		if !wants(f.names, r.spec.Name) || !f.matches(r.spec.Labels) {
			continue
		}
		if r.alerts != nil && f.alerting {
			j.Rules = append(j.Rules, f.alertingRule(r))
		}
		if r.alerts == nil && f.recording {
			o := r.outcome()
			j.Rules = append(j.Rules, recordingJSON{Name: r.spec.Name, Query: r.spec.Query, Labels: r.spec.Labels, Health: o.health,
				LastError: text(o.err), EvaluationTime: o.took.Seconds(), LastEvaluation: o.at, Type: "recording"})
		}
	}
	return j
}

func (f *filter) alertingRule(r *rule) alertingJSON {
	o := r.outcome()
	j := alertingJSON{State: r.state().String(), Name: r.spec.Name, Query: r.spec.Query, Duration: r.spec.For.Seconds(),
		KeepFiringFor: r.spec.KeepFiringFor.Seconds(), Labels: r.spec.Labels, Annotations: r.spec.Annotations, Health: o.health,
		LastError: text(o.err), EvaluationTime: o.took.Seconds(), LastEvaluation: o.at, Type: "alerting"}
	if !f.bare {
		j.Alerts = alertsJSON(r.alerts.Active())
	}
	return j
}

// matches reports whether a rule's labels match one of the selectors.
func (f *filter) matches(ls labels.Labels) bool {
	if len(f.selectors) == 0 {
		return true
	}
	return slices.ContainsFunc(f.selectors, func(set []*labels.Matcher) bool {
		return !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
