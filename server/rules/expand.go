package rules

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"

	"github.com/strandline-db/strandline/query"
)

// QueryFunc evaluates an instant expression. It is called concurrently; the vector
// is the caller's.
type QueryFunc func(ctx context.Context, expr string, t time.Time) (promql.Vector, error)

// Environment is what the evaluation of a rule needs from outside.
type Environment struct {
	Query       QueryFunc
	ExternalURL *url.URL // of this server, for templates and links; nil: unknown
	Logger      *slog.Logger
}

// EngineQuery returns a QueryFunc over the engine; client is shown in its list of
// active queries.
func EngineQuery(e *query.Engine, client string) QueryFunc {
	return func(ctx context.Context, expr string, t time.Time) (promql.Vector, error) {
		res, err := e.Instant(ctx, expr, t, query.QueryOptions{Client: client})
		if err != nil {
			return nil, err
		}
		defer res.Close()
		switch v := res.Value.(type) {
		case promql.Vector:
			out := make(promql.Vector, len(v))
			for i, s := range v {
				if s.H != nil {
					s.H = s.H.Copy()
				}
				out[i] = s
			}
			return out, nil
		case promql.Scalar:
			return promql.Vector{{T: v.T, F: v.V}}, nil
		}
		return nil, ErrResult
	}
}

// prologue names the template's data as users write them.
const prologue = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}{{$externalURL := .ExternalURL}}{{$value := .Value}}"

// expander fills in the templates of one alerting rule.
type expander struct {
	name string
	env  *Environment
}

// at returns how to expand a text for one element of the result. A faulty template
// gives a text that says so.
func (x *expander) at(ctx context.Context, s promql.Sample, ts time.Time) func(string) string {
	external := x.env.ExternalURL
	if external == nil {
		external = &url.URL{}
	}
	data := template.AlertTemplateData(s.Metric.Map(), map[string]string{}, external.String(), s)
	return func(text string) string {
		out, err := template.NewTemplateExpander(ctx, prologue+text, "__alert_"+x.name, data,
			model.Time(ts.UnixMilli()), template.QueryFunc(x.env.Query), external, nil).Expand()
		if err != nil {
			x.env.Logger.Warn("a template was not expanded", "alert", x.name, "err", err)
			return fmt.Sprintf("<error expanding template: %s>", err)
		}
		return out
	}
}
