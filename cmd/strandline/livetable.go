package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"

	"github.com/strandline-db/strandline/server/live/client"
)

const (
	// redraw is how often the table is drawn at most.
	redraw = 100 * time.Millisecond
	// history is how many values of a series are remembered for its sparkline.
	history = 60
	// maxCell is the widest that a value gets.
	maxCell = 24
	// patience is how much later than its time a step may come before the table says that
	// nothing does: the server or the connection is away, or the query is slow.
	patience = 5 * time.Second
)

// Control sequences of ECMA-48.
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearDown  = "\x1b[J"
	clearLine  = "\x1b[K"
)

// row is a series in the table.
type row struct {
	value string
	last  []float64 // newest last; NaN where there was none
	at    time.Time
}

// table is what a terminal shows of a subscription.
type table struct {
	query client.Query
	note  string
	at    time.Time // of the newest step
	heard time.Time // when something came last; zero: nothing has
	rows  map[string]*row
	drawn int // lines on the screen
}

func newTable(q client.Query) *table {
	return &table{query: q, rows: map[string]*row{}, note: "connecting"}
}

// showTable draws until the subscription or ctx ends, and leaves the last state behind.
func showTable(ctx context.Context, sub *client.Subscription, t *table, w *os.File) (err error) {
	fmt.Fprint(w, hideCursor)
	defer func() { fmt.Fprint(w, showCursor) }()
	updates := make(chan client.Update)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer close(updates)
		for u, err := range sub.All(ctx) {
			if err != nil {
				ended <- err
				return
			}
			updates <- u
		}
	}()
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	dirty := true
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				t.draw(w)
				return <-ended
			}
			t.take(&u, time.Now())
			dirty = true
		case now := <-tick.C:
			if t.silence(now) || dirty {
				t.draw(w)
			}
			dirty = false
		}
	}
}

// take puts an update that came at a time into the table.
func (t *table) take(u *client.Update, now time.Time) {
	t.heard = now
	switch {
	case u.Dropped != nil:
		t.note = fmt.Sprintf("%d steps missed", u.Dropped.Count)
		return
	case u.Err != nil:
		t.note = u.Err.Error()
		return
	}
	for _, labels := range u.Stale {
		delete(t.rows, seriesName(labels))
	}
	if u.Samples == nil {
		return
	}
	t.note = ""
	older := u.Time.Before(t.at) // a correction, or a late sample
	if !older {
		t.at = u.Time
	}
	for i := range u.Samples {
		s := &u.Samples[i]
		name := seriesName(s.Labels)
		r := t.rows[name]
		if r == nil {
			if older && !t.query.Samples { // it has ended since
				continue
			}
			r = &row{}
			t.rows[name] = r
		}
		r.take(s, u.Time, t.query.Step)
	}
	if !older && !t.query.Samples { // what is not in a step has no value
		maps.DeleteFunc(t.rows, func(_ string, r *row) bool { return !r.at.Equal(u.Time) })
	}
}

// silence says in the table that no step has come for some time, if so, and reports whether
// that is new. Samples need not come.
func (t *table) silence(now time.Time) bool {
	quiet := now.Sub(t.heard).Truncate(time.Second)
	if t.heard.IsZero() || t.query.Samples || quiet < t.query.Step+patience {
		return false
	}
	old := t.note
	t.note = fmt.Sprintf("nothing new for %s", quiet)
	return t.note != old
}

// take adds a value, or replaces the newest if it is of the same time.
func (r *row) take(s *client.Sample, at time.Time, step time.Duration) {
	text, v := cell(s)
	back := 0
	if !r.at.IsZero() && at.Before(r.at) {
		back = int(r.at.Sub(at) / step)
	}
	switch {
	case back > 0: // a correction of an older step
		if i := len(r.last) - 1 - back; i >= 0 {
			r.last[i] = v
		}
		return
	case at.Equal(r.at):
		r.last[len(r.last)-1] = v
	default:
		for gap := r.at.Add(step); !r.at.IsZero() && gap.Before(at) && at.Sub(gap) < history*step; gap = gap.Add(step) {
			r.last = append(r.last, math.NaN())
		}
		r.last = append(r.last, v)
		r.last = r.last[max(0, len(r.last)-history):]
	}
	r.value, r.at = text, at
}

// cell returns a value as text, and as the number that the sparkline shows.
func cell(s *client.Sample) (string, float64) {
	if s.Histogram == nil {
		if s.Value == math.Trunc(s.Value) && math.Abs(s.Value) < 1e15 { // a counter's last digits are what moves
			return strconv.FormatFloat(s.Value, 'f', -1, 64), s.Value
		}
		return strconv.FormatFloat(s.Value, 'g', 8, 64), s.Value
	}
	var h struct{ Count, Sum string }
	if err := json.Unmarshal(s.Histogram, &h); err != nil {
		return "histogram", math.NaN()
	}
	count, err := strconv.ParseFloat(h.Count, 64)
	if err != nil {
		count = math.NaN()
	}
	return "n=" + h.Count + " sum=" + h.Sum, count
}

// sparkline draws the newest width values between their least and largest.
func sparkline(values []float64, width int) string {
	values = values[max(0, len(values)-width):]
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			lo, hi = math.Min(lo, v), math.Max(hi, v)
		}
	}
	const bars = "▁▂▃▄▅▆▇█"
	var b strings.Builder
	b.WriteString(strings.Repeat(" ", width-len(values)))
	for _, v := range values {
		switch {
		case math.IsNaN(v):
			b.WriteByte(' ')
		case math.IsInf(v, 1):
			b.WriteRune('█')
		case math.IsInf(v, -1), hi <= lo:
			b.WriteRune('▁')
		default:
			i := int((v/2 - lo/2) / (hi/2 - lo/2) * 7.999) // halves: the difference may be too large
			b.WriteRune([]rune(bars)[min(max(i, 0), 7)])
		}
	}
	return b.String()
}

// draw replaces what was drawn before.
func (t *table) draw(w *os.File) {
	width, height, err := term.GetSize(int(w.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	t.write(w, width, height)
}

func (t *table) write(w io.Writer, width, height int) {
	lines := t.lines(width, height)
	var b strings.Builder
	if t.drawn > 1 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn-1)
	}
	b.WriteString("\r" + clearDown)
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l + clearLine)
	}
	b.WriteString("\r\n")
	t.drawn = len(lines) + 1
	fmt.Fprint(w, b.String())
}

// lines lays the table out: no line is wider than width, and there are fewer than height.
func (t *table) lines(width, height int) []string {
	head := t.query.Expr
	if !t.at.IsZero() {
		head = t.at.Format("15:04:05.000") + "  " + head
	}
	if t.note != "" {
		head += "  [" + t.note + "]"
	}
	names := slices.Sorted(maps.Keys(t.rows))
	out := []string{fit(printable(head), width)}
	room := max(height-3, 1)
	hidden := max(len(names)-room, 0)
	names = names[:len(names)-hidden]
	value, series := 5, 6
	for _, n := range names {
		value = max(value, min(runewidth.StringWidth(t.rows[n].value), maxCell))
		series = max(series, runewidth.StringWidth(printable(n)))
	}
	spark := min(history, max(width/3, 1))
	series = min(series, max(width-value-spark-4, 6))
	if series+value+4 >= width { // too narrow for a sparkline
		spark = 0
		series = max(width-value-2, 1)
	}
	for _, n := range names {
		r := t.rows[n]
		l := runewidth.FillRight(fit(printable(n), series), series) + "  " + runewidth.FillLeft(fit(r.value, value), value)
		if spark > 0 {
			l += "  " + sparkline(r.last, min(spark, width-series-value-4))
		}
		out = append(out, fit(l, width))
	}
	if hidden > 0 {
		out = append(out, fit(fmt.Sprintf("and %d more series", hidden), width))
	}
	return out
}

func fit(s string, width int) string { return runewidth.Truncate(s, width, "…") }

// printable keeps control characters of labels from the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}
