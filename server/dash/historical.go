package dash

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/shard/model"
)

// maxPoints bounds the points of a series, as Prometheus does.
const maxPoints = 11000

// aggregations over time; the first is the default.
const aggregations = "avg, sum, min, max, rate"

// span is a request for the values of a metric over a period.
type span struct {
	metric, agg, reduce string
	granularity         time.Duration
	points              int
	end                 time.Time // zero: the present
	open                bool      // the window that has not ended too
	selector            *parser.VectorSelector
}

// historical reads a request for the values over a period.
func (d *Dash) historical(args *fasthttp.Args) (*request, error) {
	s := &span{metric: string(args.Peek("metric"))}
	period, err := duration(args, "period", 24*time.Hour)
	if err != nil {
		return nil, err
	}
	if s.granularity, err = duration(args, "granularity", time.Hour); err != nil {
		return nil, err
	}
	if period < s.granularity {
		return nil, api.BadParam("period", errors.New("it must not be less than the granularity"))
	}
	if period/s.granularity > maxPoints {
		return nil, api.BadParam("granularity", fmt.Errorf("more than %d points: raise the granularity or shorten the period", maxPoints))
	}
	s.points = int(period / s.granularity)
	if s.agg, err = oneOf(args, "agg", aggregations); err != nil {
		return nil, err
	}
	if s.reduce, err = oneOf(args, "reduce", reductions); err != nil {
		return nil, err
	}
	if !args.Has("reduce") && (s.agg == "min" || s.agg == "max") {
		s.reduce = s.agg
	}
	if v := string(args.Peek("end")); v != "" {
		if s.end, err = instant(v); err != nil {
			return nil, api.BadParam("end", err)
		}
	}
	if v := string(args.Peek("open")); v != "" {
		if s.open, err = strconv.ParseBool(v); err != nil {
			return nil, api.BadParam("open", fmt.Errorf("%q is not true or false", v))
		}
	}
	key := newKey(PathHistorical, s.metric, s.agg, s.reduce, period.String(), s.granularity.String(), s.end.String(), strconv.FormatBool(s.open), string(args.Peek("partial")))
	return &request{key: key, compute: func(ctx context.Context, e *encoder) ([]string, error) { return d.history(ctx, e, s) }}, nil
}

// duration reads 90s, 5m, 1h30m, 7d or seconds; at least a millisecond.
func duration(args *fasthttp.Args, name string, def time.Duration) (time.Duration, error) {
	v := string(args.Peek(name))
	if v == "" {
		return def, nil
	}
	var d time.Duration
	if p, err := prommodel.ParseDuration(v); err == nil {
		d = time.Duration(p)
	} else if s, err := strconv.ParseFloat(v, 64); err == nil && s > 0 && s < math.MaxInt64/1e9 {
		d = time.Duration(s * 1e9)
	} else {
		return 0, api.BadParam(name, fmt.Errorf("%q is not a duration such as 30s, 1h or 7d", v))
	}
	if d = d.Truncate(time.Millisecond); d <= 0 {
		return 0, api.BadParam(name, errors.New("it must be at least 1ms"))
	}
	return d, nil
}

// instant reads RFC 3339 or seconds since 1970, in years of four digits.
func instant(v string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		s, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(s) || math.Abs(s) > 1e12 {
			return t, fmt.Errorf("%q is neither RFC 3339 nor seconds since 1970", v)
		}
		t = time.UnixMilli(int64(math.Round(s * 1000)))
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		return t, fmt.Errorf("%q is out of range", v)
	}
	return t, nil
}

// expr is the PromQL of the aggregation over windows of that length.
func (s *span) expr(window time.Duration) string {
	f := s.agg + "_over_time"
	if s.agg == "rate" {
		f = s.agg
	}
	m := &parser.MatrixSelector{VectorSelector: s.selector, Range: window}
	return f + "(" + m.String() + ")"
}

// history writes the answer to a request for the values over a period. The windows
// end at multiples of the granularity, so that asking again gives the same ones.
func (d *Dash) history(ctx context.Context, e *encoder, s *span) (warnings []string, err error) {
	if s.selector, err = d.selector("metric", s.metric); err != nil {
		return nil, err
	}
	until := d.o.Clock.Now() // no window ends later
	if !s.end.IsZero() && s.end.Before(until) {
		until = s.end
	}
	g := s.granularity.Milliseconds()
	end := floor(until.UnixMilli(), g)
	start := end - int64(s.points-1)*g
	res, err := d.q.Range(ctx, s.expr(s.granularity), time.UnixMilli(start), time.UnixMilli(end), s.granularity, query.QueryOptions{Limit: d.o.MaxSeries + 1, Client: "dashboard"})
	if err != nil {
		return nil, err
	}
	defer res.Close()
	notes := res.Warnings
	m, err := res.Matrix()
	if err != nil {
		return nil, err
	}
	if len(m) > d.o.MaxSeries {
		return nil, &model.LimitError{What: "series", Limit: int64(d.o.MaxSeries), Flag: "dashboard-max-series"}
	}
	h := &history{span: s, start: start, end: end, until: until.UnixMilli(), series: m}
	if s.open && h.until > end {
		part, err := d.q.Instant(ctx, s.expr(time.Duration(h.until-end)*time.Millisecond), until, query.QueryOptions{Limit: d.o.MaxSeries + 1, Client: "dashboard"})
		if err != nil {
			return nil, err
		}
		defer part.Close()
		if h.open, err = part.Vector(); err != nil {
			return nil, err
		}
		notes.Merge(part.Warnings)
	}
	warnings, _ = notes.AsStrings("", 0, 0)
	slices.Sort(warnings)
	return warnings, e.history(h)
}

func floor(t, g int64) int64 {
	if r := t % g; r < 0 {
		return t - r - g
	}
	return t - t%g
}

// history is an evaluated span.
type history struct {
	*span
	start, end, until int64 // of the first and last window, and of the open one
	series            promql.Matrix
	open              promql.Vector // the window that has begun and not ended
}

// history writes the answer, but for its last brace: all series folded into one, and
// each of them.
func (e *encoder) history(h *history) error {
	e.raw(`{"metric":`)
	e.text(h.metric)
	e.raw(`,"agg":`)
	e.text(h.agg)
	e.raw(`,"reduce":`)
	e.text(h.reduce)
	e.raw(`,"granularity_seconds":`)
	e.number(h.granularity.Seconds())
	e.raw(`,"data":`)
	if err := e.folded(h); err != nil {
		return err
	}
	e.raw(`,"series":`)
	all, open := h.joined()
	return e.list(len(all), func(i int) error { return e.series(h, &all[i], open[all[i].Metric.Hash()]) })
}

// joined returns all series, with those that began in the open window last, and the
// open window's values by the hash of the labels.
func (h *history) joined() ([]promql.Series, map[uint64]*promql.Sample) {
	open := map[uint64]*promql.Sample{}
	for i := range h.open {
		open[h.open[i].Metric.Hash()] = &h.open[i]
	}
	known := map[uint64]bool{}
	for i := range h.series {
		known[h.series[i].Metric.Hash()] = true
	}
	all := slices.Clip([]promql.Series(h.series))
	for i := range h.open {
		if !known[h.open[i].Metric.Hash()] {
			all = append(all, promql.Series{Metric: h.open[i].Metric})
		}
	}
	return all, open
}

// folded writes the values of all series at each step as one.
func (e *encoder) folded(h *history) error {
	g := h.granularity.Milliseconds()
	steps := make([]reducer, h.points)
	for i := range h.series {
		for _, p := range h.series[i].Floats {
			steps[(p.T-h.start)/g].add(p.T, p.F)
		}
	}
	var last reducer
	for i := range h.open {
		if h.open[i].H == nil {
			last.add(h.until, h.open[i].F)
		}
	}
	w := pointWriter{e: e}
	for i := range steps {
		if steps[i].n > 0 {
			if err := w.write(steps[i].newest, steps[i].value(h.reduce), nil, false); err != nil {
				return err
			}
		}
	}
	if last.n > 0 {
		if err := w.write(h.until, last.value(h.reduce), nil, true); err != nil {
			return err
		}
	}
	w.end()
	return nil
}

func (e *encoder) series(h *history, s *promql.Series, open *promql.Sample) error {
	e.raw(`{"labels":`)
	e.labels(s.Metric.DropReserved(func(name string) bool { return name == prommodel.MetricNameLabel }))
	e.raw(`,"data":`)
	w := pointWriter{e: e}
	fs, hs := s.Floats, s.Histograms
	for len(fs)+len(hs) > 0 {
		var err error
		if len(hs) == 0 || len(fs) > 0 && fs[0].T < hs[0].T {
			err = w.write(fs[0].T, fs[0].F, nil, false)
			fs = fs[1:]
		} else {
			err = w.write(hs[0].T, 0, hs[0].H, false)
			hs = hs[1:]
		}
		if err != nil {
			return err
		}
	}
	if open != nil {
		if err := w.write(h.until, open.F, open.H, true); err != nil {
			return err
		}
	}
	w.end()
	e.raw(`}`)
	return nil
}
