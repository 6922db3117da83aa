package dash

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/strandline-db/strandline/server/promjson"
	"github.com/strandline-db/strandline/shard/model"
)

// layout is RFC 3339 with milliseconds, which every time has.
const layout = "2006-01-02T15:04:05.000Z07:00"

// encoder appends JSON to a buffer of bounded size.
type encoder struct {
	buf []byte
	max int
}

// check fails once the answer is too large; it is called after each point, so that
// the buffer overshoots by one at most.
func (e *encoder) check() error {
	if len(e.buf) > e.max {
		return &model.LimitError{What: "response bytes", Limit: int64(e.max), Flag: "dashboard-max-response-bytes"}
	}
	return nil
}

// finish closes the answer, with the warnings if there are any.
func (e *encoder) finish(warnings []string) error {
	if len(warnings) > 0 {
		e.raw(`,"warnings":`)
		if err := e.list(len(warnings), func(i int) error { e.text(warnings[i]); return nil }); err != nil {
			return err
		}
	}
	e.raw(`}`)
	return e.check()
}

func (e *encoder) raw(s string) { e.buf = append(e.buf, s...) }

func (e *encoder) text(s string) { e.buf = promjson.AppendHTML(e.buf, s) }

func (e *encoder) labels(ls labels.Labels) { e.buf = promjson.AppendLabels(e.buf, ls) }

// time writes Unix milliseconds as RFC 3339 in UTC.
func (e *encoder) time(t int64) {
	e.raw(`"`)
	e.buf = time.UnixMilli(t).UTC().AppendFormat(e.buf, layout)
	e.raw(`"`)
}

// number writes what JSON has no number for as a string, in PromQL's spelling.
func (e *encoder) number(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		e.raw(`"`)
		e.raw(special(v))
		e.raw(`"`)
		return
	}
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	e.buf = strconv.AppendFloat(e.buf, v, format, -1, 64)
}

func special(v float64) string {
	switch {
	case math.IsNaN(v):
		return "NaN"
	case v > 0:
		return "+Inf"
	}
	return "-Inf"
}

// point writes the members timestamp and value, and histogram in the place of a value.
func (e *encoder) point(t int64, v float64, h *histogram.FloatHistogram) {
	e.raw(`"timestamp":`)
	e.time(t)
	if h == nil {
		e.raw(`,"value":`)
		e.number(v)
		return
	}
	e.raw(`,"value":null,"histogram":{"count":`)
	e.number(h.Count)
	e.raw(`,"sum":`)
	e.number(h.Sum)
	e.raw(`}`)
}

// list writes n things as an array.
func (e *encoder) list(n int, each func(i int) error) error {
	e.raw(`[`)
	for i := range n {
		if i > 0 {
			e.raw(`,`)
		}
		if err := each(i); err != nil {
			return err
		}
		if err := e.check(); err != nil {
			return err
		}
	}
	e.raw(`]`)
	return nil
}

// pointWriter writes an array of points; end closes it.
type pointWriter struct {
	e *encoder
	n int
}

func (w *pointWriter) write(t int64, v float64, h *histogram.FloatHistogram, open bool) error {
	sep := `,{`
	if w.n == 0 {
		sep = `[{`
	}
	w.n++
	w.e.raw(sep)
	w.e.point(t, v, h)
	if open {
		w.e.raw(`,"open":true`)
	}
	w.e.raw(`}`)
	return w.e.check()
}

func (w *pointWriter) end() {
	if w.n == 0 {
		w.e.raw(`[`)
	}
	w.e.raw(`]`)
}
