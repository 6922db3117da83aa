package live

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/strandline-db/strandline/query"
	"github.com/strandline-db/strandline/server/live/frame"
)

// retryAfter is after how many milliseconds a browser connects again.
const retryAfter = 1000

// sseTransport writes server-sent events; the stream ends with the connection.
type sseTransport struct {
	c    *conn
	subs []*sub      // as in the request, nil where one was refused: the cursor's order
	from []frame.Sub // as in the request
	buf  []byte
}

// events makes the connection a stream of events.
func (s *Server) events(rc *fasthttp.RequestCtx) {
	if !rc.IsGet() {
		rc.Response.Header.Set("Allow", "GET")
		fail(rc, fasthttp.StatusMethodNotAllowed, query.BadData.String(), errNotGet)
		return
	}
	if !s.admit(rc) {
		return
	}
	wanted, err := streamOf(rc)
	if err == nil && len(wanted) > s.opts.MaxSubs {
		err = tooManySubs(s.opts.MaxSubs)
	}
	if err != nil {
		fail(rc, statusOf(err), typeOf(err), err)
		return
	}
	c, ok := s.open(rc)
	if !ok {
		return
	}
	defer c.abandon(making) // unless it is hijacked
	t := &sseTransport{c: c, from: wanted}
	t.head(string(rc.Request.Header.Peek("Origin")))
	var failed error
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.SyncTimeout) // for all together
	defer cancel()
	for i := range wanted {
		applied, err := s.appliedOf(&wanted[i])
		if err == nil {
			err = s.sync(ctx, applied)
		}
		if err != nil {
			c.refuse(frame.OpSubscribe, wanted[i].ID, err)
		} else {
			err = c.begin(s.ctx, frame.OpSubscribe, &wanted[i])
		}
		failed = errors.Join(failed, err)
		t.subs = append(t.subs, c.find(wanted[i].ID))
	}
	if len(c.list()) == 0 {
		fail(rc, statusOf(failed), typeOf(failed), failed)
		return
	}
	c.t = t
	s.hijack(rc, c)
}

func statusOf(err error) int {
	switch typeOf(err) {
	case "bad_data":
		return fasthttp.StatusBadRequest
	case "unavailable", "timeout":
		return fasthttp.StatusServiceUnavailable
	case "internal":
		return fasthttp.StatusInternalServerError
	}
	return fasthttp.StatusUnprocessableEntity
}

// head gathers the head of the answer.
func (t *sseTransport) head(origin string) {
	h := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-store\r\n" +
		"X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n"
	if origin != "" { // admitted, and so without line breaks
		h += "Access-Control-Allow-Origin: " + origin + "\r\nVary: Origin\r\n"
	}
	_, _ = t.c.out.Write([]byte(h + "\r\nretry: " + strconv.Itoa(retryAfter) + "\n\n")) // into memory
}

// streamOf reads the subscriptions from the request's arguments: query as often as
// wanted; step, backfill and mode once, or once for each query; last_event_id once, in the
// place of the header, which a page can't set on an EventSource that it opens anew.
func streamOf(rc *fasthttp.RequestCtx) ([]frame.Sub, error) {
	args := map[string][]string{}
	for k, v := range rc.QueryArgs().All() {
		args[string(k)] = append(args[string(k)], string(v))
	}
	if err := onlyKnown(args, "query", "step", "backfill", "mode", "applied", "last_event_id"); err != nil {
		return nil, err
	}
	lastID := string(rc.Request.Header.Peek("Last-Event-ID"))
	if given := args["last_event_id"]; lastID == "" && len(given) > 0 {
		lastID = given[0]
	}
	return parseStream(args, lastID, time.Now())
}

func parseStream(args map[string][]string, lastID string, now time.Time) ([]frame.Sub, error) {
	queries := args["query"]
	if len(queries) == 0 {
		return nil, fmt.Errorf(`%w "query": it is missing`, errParam)
	}
	at := func(name string, i int) (string, error) {
		switch v := args[name]; len(v) {
		case 0:
			return "", nil
		case 1:
			return v[0], nil
		case len(queries):
			return v[i], nil
		default:
			return "", errors.New("it must be there once, or once for each query")
		}
	}
	cursors, err := parseCursor(lastID, len(queries), now)
	if err != nil {
		return nil, err
	}
	subs := make([]frame.Sub, len(queries))
	for i := range subs {
		w := &subs[i]
		w.ID, w.Query, w.Resume, w.Seen = strconv.Itoa(i), queries[i], cursors[i].resume, cursors[i].seen
		for name, set := range map[string]func(string) error{
			"step":     func(v string) (err error) { w.Step, err = frame.ParseDuration(v); return err },
			"backfill": func(v string) (err error) { w.Backfill, err = frame.ParseDuration(v); return err },
			"mode":     func(v string) error { w.Mode = v; return nil },
			"applied":  func(v string) error { w.Applied = v; return nil },
		} {
			v, err := at(name, i)
			if err == nil && v != "" {
				err = set(v)
			}
			if err != nil {
				return nil, fmt.Errorf("%w %q: %w", errParam, name, err)
			}
		}
		if err := w.Fault(); err != nil {
			return nil, fmt.Errorf("%w: %w", errParam, err)
		}
	}
	return subs, nil
}

// cursor is what to resume a query after.
type cursor struct{ resume, seen frame.Time }

// A cursor's times lie at most so far from the server's clock: a word read in base 36 is
// hardly ever so near, and would begin the stream at any time.
const (
	cursorPast   = 10 * 366 * 24 * time.Hour
	cursorFuture = 24 * time.Hour
)

// parseCursor reads an event's id: for each query what to resume after, 0 if nothing, and
// behind a point what it has seen of corrections, if any; in base 36.
func parseCursor(id string, n int, now time.Time) ([]cursor, error) {
	out := make([]cursor, n)
	if id == "" {
		return out, nil
	}
	parts := strings.Split(id, "-")
	if len(parts) != n {
		return nil, errCursor
	}
	for i, p := range parts {
		resume, seen, both := strings.Cut(p, ".")
		var ok, seenOK bool
		out[i].resume, ok = parseCursorTime(resume, now)
		if out[i].seen, seenOK = parseCursorTime(seen, now); !ok || both && !seenOK {
			return nil, errCursor
		}
	}
	return out, nil
}

func parseCursorTime(s string, now time.Time) (_ frame.Time, ok bool) {
	t, err := strconv.ParseUint(s, 36, 50)
	if err != nil {
		return 0, false
	}
	far := now.Sub(time.UnixMilli(int64(t)))
	return frame.Time(t), t == 0 || -cursorFuture <= far && far <= cursorPast
}

func (t *sseTransport) appendCursor(b []byte) []byte {
	for i, s := range t.subs {
		if i > 0 {
			b = append(b, '-')
		}
		at, seen := int64(t.from[i].Resume), int64(t.from[i].Seen)
		if s != nil {
			at, seen = max(s.cursor, 0), max(s.seen, seen)
		}
		b = strconv.AppendInt(b, at, 36)
		if seen > 0 {
			b = append(b, '.')
			b = strconv.AppendInt(b, seen, 36)
		}
	}
	return b
}

func (t *sseTransport) name() string { return "sse" }

// frame writes an event. Its payload, JSON, has no line breaks.
func (t *sseTransport) frame(kind string, payload []byte, advances bool) {
	b := append(t.buf[:0], "event: "...)
	b = append(b, kind...)
	if advances {
		b = append(b, "\nid: "...)
		b = t.appendCursor(b)
	}
	b = append(b, "\ndata: "...)
	_, _ = t.c.out.Write(b) // into memory, as the next two
	_, _ = t.c.out.Write(payload)
	_, _ = t.c.out.Write([]byte("\n\n"))
	if t.buf = b[:0]; cap(b) > 512 {
		t.buf = nil
	}
}

// ping writes a comment, which a proxy sees and a page does not.
func (t *sseTransport) ping([]byte, bool) { _, _ = t.c.out.Write([]byte(": \n\n")) }

func (t *sseTransport) close(int, string) {}

func (t *sseTransport) answers() bool { return false }

// read notices that the client goes; it has nothing to say.
func (t *sseTransport) read() error {
	var buf [64]byte
	for {
		if err := t.c.out.conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if _, err := t.c.out.Read(buf[:]); err != nil {
			return err
		}
	}
}
