package dash

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/server/api"
	"github.com/strandline-db/strandline/shard/model"
)

// latest is the newest sample of a series.
type latest struct {
	labels labels.Labels
	t      int64
	v      float64
	h      *histogram.FloatHistogram // in the place of v
}

// realtime reads a request for the latest values.
func (d *Dash) realtime(args *fasthttp.Args) (*request, error) {
	var names []string
	for _, list := range args.PeekMulti("metrics") {
		for _, name := range split(string(list)) {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
			if len(names) > d.o.MaxMetrics {
				return nil, api.BadParam("metrics", fmt.Errorf("more than %d metrics; ask for the rest in another request, or raise dashboard-max-metrics", d.o.MaxMetrics))
			}
		}
	}
	if len(names) == 0 {
		return nil, api.BadParam("metrics", errors.New("want a list of metrics, divided by commas"))
	}
	reduce, err := oneOf(args, "reduce", reductions)
	if err != nil {
		return nil, err
	}
	// Fresh reads what else there is: an answer that may be partial is not everybody's.
	key := newKey(append([]string{PathRealtime, reduce, string(args.Peek("partial"))}, names...)...)
	return &request{key: key, compute: func(ctx context.Context, e *encoder) ([]string, error) {
		return nil, d.latest(ctx, e, names, reduce)
	}}, nil
}

// latest writes the answer to a request for the latest values, but for its last brace.
func (d *Dash) latest(ctx context.Context, e *encoder, names []string, reduce string) error {
	selectors := make([]*parser.VectorSelector, len(names))
	for i, name := range names {
		var err error
		if selectors[i], err = d.selector("metrics", name); err != nil {
			return err
		}
	}
	now := d.o.Clock.Now()
	e.raw(`{"timestamp":`)
	e.time(now.UnixMilli())
	e.raw(`,"health":{"status":`)
	if err := d.o.Ready(); err != nil {
		e.raw(`"degraded","reason":`)
		e.text(err.Error())
	} else {
		e.raw(`"ok"`)
	}
	e.raw(`,"uptime_seconds":`)
	e.number(now.Sub(d.start).Seconds())
	e.raw(`},"metrics":{`)
	for i, vs := range selectors {
		list, err := d.newest(ctx, vs, now.UnixMilli())
		if err != nil {
			return fmt.Errorf("%s: %w", names[i], err)
		}
		if i > 0 {
			e.raw(`,`)
		}
		e.text(names[i])
		e.raw(`:`)
		if err := e.latest(list, reduce); err != nil {
			return err
		}
	}
	e.raw(`}`)
	return nil
}

// newest returns the newest sample of each selected series within the lookback; like
// PromQL, without those whose newest is a stale marker.
func (d *Dash) newest(ctx context.Context, vs *parser.VectorSelector, now int64) ([]latest, error) {
	sel, err := model.Select(ctx, d.r, &model.SelectRequest{MinT: now - d.o.Lookback.Milliseconds() + 1, MaxT: now, Matchers: vs.LabelMatchers, MaxSeries: d.o.MaxSeries})
	if err != nil {
		if limit, ok := errors.AsType[*model.LimitError](err); ok && limit.What == "series" {
			err = &model.LimitError{What: limit.What, Limit: limit.Limit, Flag: "dashboard-max-series"}
		}
		return nil, err
	}
	defer sel.Close()
	var list []latest
	var c model.Columns
	for _, s := range sel.Series {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c.Reset()
		if err := s.Read(&c); err != nil {
			return nil, err
		}
		if l, ok := newestOf(&c); ok {
			l.labels = s.Labels()
			list = append(list, l)
		}
	}
	return list, nil
}

func newestOf(c *model.Columns) (latest, bool) {
	nf, nh := len(c.T), len(c.Hist)
	switch {
	case nf > 0 && (nh == 0 || c.T[nf-1] > c.Hist[nh-1].T):
		return latest{t: c.T[nf-1], v: c.V[nf-1]}, !value.IsStaleNaN(c.V[nf-1])
	case nh > 0:
		h := c.Hist[nh-1].Float()
		return latest{t: c.Hist[nh-1].T, h: h}, !value.IsStaleNaN(h.Sum)
	}
	return latest{}, false
}

// latest writes one metric: all series folded into one value, and each of them.
func (e *encoder) latest(list []latest, reduce string) error {
	var r reducer
	for _, l := range list {
		if l.h == nil {
			r.add(l.t, l.v)
		}
	}
	if r.n == 0 {
		e.raw(`{"timestamp":null,"value":null`)
	} else {
		e.raw(`{`)
		e.point(r.newest, r.value(reduce), nil)
	}
	e.raw(`,"series":`)
	err := e.list(len(list), func(i int) error {
		e.raw(`{"labels":`)
		e.labels(list[i].labels)
		e.raw(`,`)
		e.point(list[i].t, list[i].v, list[i].h)
		e.raw(`}`)
		return nil
	})
	e.raw(`}`)
	return err
}
