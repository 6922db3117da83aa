package live

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/promql/parser"

	qlive "github.com/strandline-db/strandline/query/live"
	"github.com/strandline-db/strandline/server/live/frame"
	"github.com/strandline-db/strandline/server/promjson"
	"github.com/strandline-db/strandline/server/selector"
)

// maxMetric is the longest metric or selector of the older form: it is in every frame.
const maxMetric = 1024

// simpleRequest carries out a request of the older form.
func (c *conn) simpleRequest(ctx context.Context, msg []byte) {
	r, err := frame.ParseSimple(msg)
	if err == nil && len(r.Metric) > maxMetric {
		r.Metric, err = "", fmt.Errorf("%w: the metric is longer than %d bytes", frame.ErrBad, maxMetric)
	}
	switch {
	case err != nil:
		c.reply(frame.Error, errorFrame(r.Action, quoteID(r.Metric), 0, err, false))
	case r.Action == frame.OpUnsubscribe:
		c.unsubscribe(r.Action, r.Metric)
	default:
		vs, err := selector.Parse(parser.NewParser(parser.Options{}), r.Metric)
		if err != nil {
			err = fmt.Errorf("%w; subscribe to expressions at %s", err, PathLive)
			c.reply(frame.Error, errorFrame(r.Action, quoteID(r.Metric), 0, err, true))
			return
		}
		want := frame.Sub{ID: r.Metric, Query: vs.String(), Mode: frame.ModeSamples}
		c.subscribe(ctx, r.Action, &want)
	}
}

// appendSimple writes a data frame that needs no other to be understood.
func appendSimple(b []byte, s *sub, step *qlive.Step) []byte {
	b = begin(b, frame.Data, s.id)
	b = appendStep(b, step)
	b = append(b, `,"metric":`...)
	b = append(b, s.id...)
	b = append(b, `,"timestamp":"`...)
	b = time.UnixMilli(step.T).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	b = append(b, `","values":[`...)
	for i := range step.Values {
		v := &step.Values[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"labels":`...)
		b = promjson.AppendLabels(b, s.labels[v.Series])
		b = append(b, `,"value":`...)
		b = appendValue(b, v)
		b = append(b, '}')
	}
	return append(b, `]}`...)
}
