package api

import (
	"encoding/json"
	"strconv"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/promjson"
	"github.com/strandline-db/strandline/shard/model"
)

const (
	maxNotes       = 10      // warnings and infos shown of a query, each
	pooledBytesMax = 1 << 20 // larger buffers are left to the garbage collector
)

// answer is a success: its data as something that encodes it.
type answer struct {
	data  func(*encoder) error
	notes annotations.Annotations
	expr  string // that the notes point into
	// warnings tell what parts are missing
	warnings []string
	done     func() // called when the answer is encoded
}

// encoder appends JSON to a buffer of bounded size.
type encoder struct {
	buf []byte
	max int
}

func (a *API) newEncoder() *encoder {
	e, ok := a.encoders.Get().(*encoder)
	if !ok {
		e = &encoder{max: a.opts.MaxResponseBytes}
	}
	e.buf = e.buf[:0]
	return e
}

func (a *API) free(e *encoder) {
	if cap(e.buf) > pooledBytesMax {
		e.buf = nil
	}
	a.encoders.Put(e)
}

// check fails once the answer is too large. It is called after each sample or
// string, so that the buffer overshoots by one of them at most.
func (e *encoder) check() error {
	if len(e.buf) > e.max {
		return &model.LimitError{What: "response bytes", Limit: int64(e.max), Flag: "query-max-response-bytes"}
	}
	return nil
}

func (e *encoder) raw(s string) { e.buf = append(e.buf, s...) }

func (e *encoder) envelope(a *answer) error {
	e.raw(`{"status":"success","data":`)
	if err := a.data(e); err != nil {
		return err
	}
	warnings, infos := query.Notes(a.expr, a.notes, maxNotes)
	warnings = append(warnings, a.warnings...)
	for _, n := range []struct {
		name string
		list []string
	}{{`,"warnings":`, warnings}, {`,"infos":`, infos}} {
		if len(n.list) > 0 {
			e.raw(n.name)
			if err := e.strings(n.list); err != nil {
				return err
			}
		}
	}
	e.raw(`}`)
	return e.check()
}

// reflect is for what is small and rare.
func (e *encoder) reflect(v any) error {
	b, err := json.Marshal(v)
	e.buf = append(e.buf, b...)
	return err
}

// list encodes n things as an array.
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

func (e *encoder) strings(list []string) error {
	return e.list(len(list), func(i int) error { e.html(list[i]); return nil })
}

func (e *encoder) labelSets(list []labels.Labels) error {
	return e.list(len(list), func(i int) error { e.labels(list[i]); return nil })
}

func (e *encoder) value(v parser.Value) error {
	switch v := v.(type) {
	case promql.Vector:
		return e.list(len(v), func(i int) error { e.sample(&v[i]); return nil })
	case promql.Matrix:
		return e.list(len(v), func(i int) error { return e.series(&v[i]) })
	case promql.Scalar:
		e.constant(v.T)
		e.raw(`"`)
		e.buf = strconv.AppendFloat(e.buf, v.V, 'f', -1, 64)
		e.raw(`"]`)
	case promql.String:
		e.constant(v.T)
		e.html(v.V)
		e.raw(`]`)
	}
	return nil
}

func (e *encoder) constant(t int64) {
	e.raw(`[`)
	e.buf = strconv.AppendFloat(e.buf, float64(t)/1000, 'f', -1, 64)
	e.raw(`,`)
}

func (e *encoder) sample(s *promql.Sample) {
	e.raw(`{"metric":`)
	e.labels(s.Metric)
	if s.H == nil {
		e.raw(`,"value":`)
		e.point(s.T, s.F)
	} else {
		e.raw(`,"histogram":`)
		e.histogramPoint(s.T, s.H)
	}
	e.raw(`}`)
}

func (e *encoder) series(s *promql.Series) error {
	e.raw(`{"metric":`)
	e.labels(s.Metric)
	if len(s.Floats) > 0 {
		e.raw(`,"values":`)
		if err := e.list(len(s.Floats), func(i int) error {
			e.point(s.Floats[i].T, s.Floats[i].F)
			return nil
		}); err != nil {
			return err
		}
	}
	if len(s.Histograms) > 0 {
		e.raw(`,"histograms":`)
		if err := e.list(len(s.Histograms), func(i int) error {
			e.histogramPoint(s.Histograms[i].T, s.Histograms[i].H)
			return nil
		}); err != nil {
			return err
		}
	}
	e.raw(`}`)
	return nil
}

func (e *encoder) point(t int64, v float64) {
	e.raw(`[`)
	e.timestamp(t)
	e.raw(`,`)
	e.float(v)
	e.raw(`]`)
}

func (e *encoder) histogramPoint(t int64, h *histogram.FloatHistogram) {
	e.raw(`[`)
	e.timestamp(t)
	e.raw(`,`)
	e.histogram(h)
	e.raw(`]`)
}

func (e *encoder) histogram(h *histogram.FloatHistogram) {
	e.buf = promjson.AppendHistogram(e.buf, h)
}

func (e *encoder) exemplars(list []exemplar.QueryResult) error {
	return e.list(len(list), func(i int) error {
		e.raw(`{"seriesLabels":`)
		e.labels(list[i].SeriesLabels)
		e.raw(`,"exemplars":`)
		ex := list[i].Exemplars
		err := e.list(len(ex), func(j int) error {
			e.raw(`{"labels":`)
			e.labels(ex[j].Labels)
			e.raw(`,"value":`)
			e.float(ex[j].Value)
			e.raw(`,"timestamp":`)
			e.timestamp(ex[j].Ts)
			e.raw(`}`)
			return nil
		})
		e.raw(`}`)
		return err
	})
}

// metadata writes an object by metric; the list is sorted by it. Negative limits
// are none; a limit_per_metric of 0 is none too.
func (e *encoder) metadata(list []model.Metadata, limit, perMetric int) error {
	e.raw(`{`)
	metrics, inMetric := 0, 0
	for i, m := range list {
		if i == 0 || m.Metric != list[i-1].Metric {
			if limit >= 0 && metrics >= limit {
				break
			}
			if metrics++; metrics > 1 {
				e.raw(`],`)
			}
			e.html(m.Metric)
			e.raw(`:[`)
			inMetric = 0
		}
		if perMetric > 0 && inMetric >= perMetric {
			continue
		}
		if inMetric++; inMetric > 1 {
			e.raw(`,`)
		}
		e.raw(`{"type":`)
		e.html(m.Type)
		e.raw(`,"unit":`)
		e.html(m.Unit)
		e.raw(`,"help":`)
		e.html(m.Help)
		e.raw(`}`)
		if err := e.check(); err != nil {
			return err
		}
	}
	if metrics > 0 {
		e.raw(`]`)
	}
	e.raw(`}`)
	return nil
}

func (e *encoder) labels(ls labels.Labels) { e.buf = promjson.AppendLabels(e.buf, ls) }

func (e *encoder) timestamp(t int64) { e.buf = promjson.AppendTime(e.buf, t) }

func (e *encoder) float(f float64) { e.buf = promjson.AppendFloat(e.buf, f) }

func (e *encoder) html(s string) { e.buf = promjson.AppendHTML(e.buf, s) }

// body hands the buffer over as the response, compressed if it is worth it and
// the client takes gzip.
func (a *API) body(rc *fasthttp.RequestCtx, e *encoder) {
	if a.opts.GzipMinBytes >= 0 && len(e.buf) >= a.opts.GzipMinBytes {
		rc.Response.Header.Add("Vary", "Accept-Encoding")
		if rc.Request.Header.HasAcceptEncoding("gzip") {
			a.gzip(rc, e.buf)
			return
		}
	}
	if cap(e.buf) > pooledBytesMax {
		rc.Response.SetBodyRaw(e.buf)
		e.buf = nil
		return
	}
	rc.Response.SetBody(e.buf)
}

func (a *API) gzip(rc *fasthttp.RequestCtx, b []byte) {
	w, err := gzip.NewWriterLevel(rc.Response.BodyWriter(), gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		a.opts.Logger.Error("answer can't be compressed", "err", err)
		rc.Response.ResetBody()
		rc.Response.SetBody(b)
		return
	}
	rc.Response.Header.Set("Content-Encoding", "gzip")
}
