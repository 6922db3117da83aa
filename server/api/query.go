package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/strandline-db/strandline/query"
)

func (a *API) query(ctx context.Context, f *form) (*answer, error) {
	limit, err := f.limit()
	if err != nil {
		return nil, err
	}
	ts, err := f.time("time", a.opts.Clock.Now())
	if err != nil {
		return nil, err
	}
	o, err := queryOptions(f, limit)
	if err != nil {
		return nil, err
	}
	expr := f.get("query")
	res, err := a.q.Instant(ctx, expr, ts, o)
	return queryAnswer(f, expr, res, err)
}

func (a *API) queryRange(ctx context.Context, f *form) (*answer, error) {
	limit, err := f.limit()
	if err != nil {
		return nil, err
	}
	start, err := parseTime(f.get("start"))
	if err != nil {
		return nil, badParam(err, "start")
	}
	end, err := parseTime(f.get("end"))
	if err != nil {
		return nil, badParam(err, "end")
	}
	if end.Before(start) {
		return nil, badParam(errors.New("end timestamp must not be before start time"), "end")
	}
	step, err := parseDuration(f.get("step"))
	if err != nil {
		return nil, badParam(err, "step")
	}
	if step <= 0 {
		return nil, badParam(errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"), "step")
	}
	if end.Sub(start)/step > maxPoints {
		return nil, badData(errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	o, err := queryOptions(f, limit)
	if err != nil {
		return nil, err
	}
	expr := f.get("query")
	res, err := a.q.Range(ctx, expr, start, end, step, o)
	return queryAnswer(f, expr, res, err)
}

func queryOptions(f *form, limit int) (query.QueryOptions, error) {
	o := query.QueryOptions{Limit: limit, Client: f.rc.RemoteIP().String(), Stats: f.get("stats") == "all"}
	var err error
	if s := f.get("timeout"); s != "" {
		if o.Timeout, err = parseDuration(s); err != nil {
			return o, badParam(err, "timeout")
		}
		if o.Timeout <= 0 {
			return o, badParam(fmt.Errorf("timeout must be positive, got %s", o.Timeout), "timeout")
		}
	}
	if s := f.get("lookback_delta"); s != "" {
		if o.Lookback, err = parseDuration(s); err != nil {
			return o, badData(fmt.Errorf("error parsing lookback delta duration: %w", err))
		}
	}
	const header = "X-Prometheus-Use-Start-Timestamps"
	if s := f.header(header); s != "" {
		use, err := strconv.ParseBool(s)
		if err != nil {
			return o, badData(fmt.Errorf("error parsing %s header: %w", header, err))
		}
		o.StartTimestamps = &use
	}
	return o, nil
}

func queryAnswer(f *form, expr string, res *query.Result, err error) (*answer, error) {
	if err != nil {
		var typed *query.Error
		if errors.As(err, &typed) && typed.Kind == query.BadData {
			err = badParam(typed.Err, "query")
		}
		return nil, err
	}
	notes := res.Warnings
	if res.Truncated {
		notes.Add(errTruncated)
	}
	param := f.get("stats")
	if param != "" && param != "true" && param != "all" {
		notes.Add(fmt.Errorf("value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use %q or %q", param, "true", "all"))
	}
	ans := &answer{notes: notes, expr: expr, done: res.Close}
	ans.data = func(e *encoder) error {
		e.raw(`{"resultType":`)
		e.html(string(res.Value.Type()))
		e.raw(`,"result":`)
		if err := e.value(res.Value); err != nil {
			return err
		}
		if param != "" {
			e.raw(`,"stats":`)
			if err := e.reflect(stats.NewQueryStats(res.Stats)); err != nil {
				return err
			}
		}
		e.raw(`}`)
		return nil
	}
	return ans, nil
}

func (a *API) formatQuery(_ context.Context, f *form) (*answer, error) {
	expr, err := a.q.Parser().ParseExpr(f.get("query"))
	if err != nil {
		return nil, badParam(err, "query")
	}
	return reflected(expr.Pretty(0)), nil
}

func (a *API) parseQuery(_ context.Context, f *form) (*answer, error) {
	expr, err := a.q.Parser().ParseExpr(f.get("query"))
	if err != nil {
		return nil, badParam(err, "query")
	}
	return reflected(tree(expr)), nil
}

func (a *API) exemplars(ctx context.Context, f *form) (*answer, error) {
	start, end, err := f.span()
	if err != nil {
		return nil, err
	}
	if end.Before(start) {
		return nil, badData(errors.New("end timestamp must not be before start timestamp"))
	}
	expr, err := a.q.Parser().ParseExpr(f.get("query"))
	if err != nil {
		return nil, badData(err)
	}
	selectors := parser.ExtractSelectors(expr)
	if len(selectors) == 0 {
		return nil, nil
	}
	eq, err := a.q.Queryable().ExemplarQuerier(ctx)
	if err != nil {
		return nil, err
	}
	list, err := eq.Select(millis(start), millis(end), selectors...)
	if err != nil {
		return nil, err
	}
	return &answer{data: func(e *encoder) error { return e.exemplars(list) }}, nil
}

func millis(t time.Time) int64 { return t.UnixMilli() }
