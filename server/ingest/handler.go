package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/time/rate"

	"github.com/strandline-db/strandline/shard/model"
)

// headerApplied tells where in the logs a write lies: a read that sends it back, at any
// node of a cluster, sees the write.
const headerApplied = "X-Strandline-Applied"

// The headers of 2.0 that tell what was written.
const (
	headerSamples    = "X-Prometheus-Remote-Write-Samples-Written"
	headerHistograms = "X-Prometheus-Remote-Write-Histograms-Written"
	headerExemplars  = "X-Prometheus-Remote-Write-Exemplars-Written"
)

// Appender stores batches. It is called concurrently.
type Appender interface {
	// Append returns when b is stored, but for what Rejected names. It must not
	// use b, or anything that b points to, after it returned; strings in b.Metadata
	// included. When it fails, nothing is known to be stored and the sender is told
	// to try again.
	Append(ctx context.Context, b *model.Batch) (model.AppendResult, error)
}

// Handler answers remote-write requests. It is safe for concurrent use.
type Handler struct {
	o        Options
	store    Appender
	metrics  *metrics
	decoders sync.Pool
	slots    chan struct{}
	inFlight atomic.Int64  // bytes of decompressed bodies
	warnings *rate.Limiter // while a node can take nothing, each try of each sender fails
}

// New checks the options and returns a Handler that stores with a. o may be nil.
func New(a Appender, o *Options) (*Handler, error) {
	h := &Handler{store: a}
	if o != nil {
		h.o = *o
	}
	h.o.EnsureDefaults()
	if err := h.o.Validate(); err != nil {
		return nil, err
	}
	if a == nil {
		return nil, fmt.Errorf("%w: there is nothing to append to", ErrBadOptions)
	}
	var err error
	if h.metrics, err = newMetrics(h.o.Registerer); err != nil {
		return nil, err
	}
	h.slots, h.warnings = make(chan struct{}, h.o.MaxConcurrent), rate.NewLimiter(rate.Every(10*time.Second), 4)
	h.decoders.New = func() any { return &decoder{seen: map[metaRef]struct{}{}} }
	return h, nil
}

// Handle answers one write request: 204 when everything is stored, 400 when
// something never will be (the rest is stored), 503 with Retry-After when it is
// worth trying again.
func (h *Handler) Handle(ctx *fasthttp.RequestCtx) {
	if !ctx.IsPost() {
		ctx.Response.Header.Set("Allow", fasthttp.MethodPost)
		h.answer(ctx, 0, fasthttp.StatusMethodNotAllowed, "write with POST")
		return
	}
	p, err := protocolOf(string(ctx.Request.Header.ContentType()), string(ctx.Request.Header.ContentEncoding()))
	var res model.AppendResult
	if err == nil {
		res, err = h.write(p, ctx.PostBody())
	}
	if p == protocolV2 {
		head := &ctx.Response.Header
		head.Set(headerSamples, strconv.Itoa(res.Samples))
		head.Set(headerHistograms, strconv.Itoa(res.Histograms))
		head.Set(headerExemplars, strconv.Itoa(res.Exemplars))
	}
	if len(res.Applied) > 0 {
		ctx.Response.Header.SetBytesV(headerApplied, res.Applied.Append(nil))
	}
	if err == nil {
		h.answer(ctx, p, fasthttp.StatusNoContent, "")
		return
	}
	code := statusOf(err)
	if code == fasthttp.StatusServiceUnavailable {
		// Spread the senders, so that they don't come back all at once.
		ctx.Response.Header.Set("Retry-After", strconv.Itoa(1+rand.IntN(5)))
	}
	level := slog.LevelDebug
	if code >= 500 && h.warnings.Allow() {
		level = slog.LevelWarn
	}
	h.o.Logger.Log(ctx, level, "write request failed", "code", code, "err", err)
	h.answer(ctx, p, code, err.Error())
}

func (h *Handler) answer(ctx *fasthttp.RequestCtx, p protocol, code int, text string) {
	version := "unknown"
	switch p {
	case protocolV1:
		version = "1.0"
	case protocolV2:
		version = "2.0"
	}
	h.metrics.requests.WithLabelValues(version, strconv.Itoa(code)).Inc()
	ctx.SetStatusCode(code)
	if text != "" {
		ctx.SetContentType("text/plain; charset=utf-8")
		ctx.SetBodyString(text + "\n")
	}
}

// statusOf is the answer to an error of write.
func statusOf(err error) int {
	for _, e := range []error{model.ErrOverloaded, model.ErrUnavailable, model.ErrReadOnly, model.ErrClosed, model.ErrFailed, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, e) {
			return fasthttp.StatusServiceUnavailable
		}
	}
	switch {
	case errors.Is(err, ErrUnsupported):
		return fasthttp.StatusUnsupportedMediaType
	case errors.Is(err, ErrTooLarge):
		return fasthttp.StatusRequestEntityTooLarge
	case errors.Is(err, ErrMalformed), errors.Is(err, errRefused):
		return fasthttp.StatusBadRequest
	}
	return fasthttp.StatusInternalServerError
}

// errRefused: part of a request was refused, the rest is stored.
var errRefused = errors.New("refused")

// write decodes and stores one body. When the error wraps errRefused, res counts
// what was stored all the same.
func (h *Handler) write(p protocol, src []byte) (res model.AppendResult, err error) {
	n, err := decodedLen(src, h.o.MaxBodyBytes)
	if err != nil {
		h.metrics.malformed.Inc()
		return res, err
	}
	if err := h.enter(n); err != nil {
		return res, err
	}
	defer h.leave(n)
	h.metrics.wireBytes.Add(float64(len(src)))
	h.metrics.bodyBytes.Add(float64(n))
	d := h.decoders.Get().(*decoder)
	defer h.release(d)
	if err := d.decode(p, src, n, unfold*h.o.MaxBodyBytes); err != nil {
		h.metrics.malformed.Inc()
		return res, err
	}
	if len(d.batch.Series) > 0 || len(d.batch.Metadata) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), h.o.RequestTimeout)
		defer cancel()
		if res, err = h.store.Append(ctx, &d.batch); err != nil {
			return model.AppendResult{}, err
		}
	}
	h.metrics.samples.Add(float64(res.Samples))
	h.metrics.histograms.Add(float64(res.Histograms))
	h.metrics.exemplars.Add(float64(res.Exemplars))
	return res, h.refusal(d, res.Rejected)
}

// refusal is the error for what of d's request was not stored, nil if all was.
func (h *Handler) refusal(d *decoder, rejected []model.Rejection) error {
	n := d.bad
	for i := range rejected {
		if _, counted := slices.BinarySearch(d.partly, rejected[i].Series); !counted {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	h.metrics.rejected.Add(float64(n))
	first := d.firstBad
	if first == nil {
		r := rejected[0]
		if r.Series < 0 || r.Series >= len(d.batch.Series) {
			return fmt.Errorf("%w: %d of the request's series, the first: %w", errRefused, n, r.Err)
		}
		first = fmt.Errorf("series %s: %w", keyText(d.batch.Series[r.Series].Key), r.Err)
	}
	return fmt.Errorf("%w: %d of the request's series in whole or part, the rest is stored; the first: %w", errRefused, n, first)
}

// decode fills the batch from a compressed body of n bytes.
func (d *decoder) decode(p protocol, src []byte, n, budget int) (err error) {
	d.reset(budget)
	if d.body, err = decompress(d.body, src, n); err != nil {
		return err
	}
	if p == protocolV2 {
		return d.decodeV2()
	}
	return d.decodeV1()
}

// enter takes a place for a body of n bytes, waiting a short while for one.
func (h *Handler) enter(n int) error {
	select {
	case h.slots <- struct{}{}:
	default:
		t := time.NewTimer(h.o.MaxWait)
		defer t.Stop()
		select {
		case h.slots <- struct{}{}:
		case <-t.C:
			return fmt.Errorf("%w: %d write requests are in work", model.ErrOverloaded, h.o.MaxConcurrent)
		}
	}
	if h.inFlight.Add(int64(n)) > h.o.MaxInFlightBytes {
		h.inFlight.Add(-int64(n))
		<-h.slots
		return fmt.Errorf("%w: write requests in work hold %d bytes", model.ErrOverloaded, h.o.MaxInFlightBytes)
	}
	h.metrics.inFlight.Inc()
	return nil
}

func (h *Handler) leave(n int) {
	h.metrics.inFlight.Dec()
	h.inFlight.Add(-int64(n))
	<-h.slots
}

// release puts a decoder back, emptied so that it holds on to nothing.
func (h *Handler) release(d *decoder) {
	if d.oversized() {
		return
	}
	d.reset(0)
	h.decoders.Put(d)
}
