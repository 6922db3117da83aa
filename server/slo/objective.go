package slo

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// placeholder stands for a window's length in expressions.
const placeholder = "$window"

// Bounds of Objective.Window, and its default. Below a week the windows of the
// alerts, up to 3 days, would not fit.
const (
	MinWindow     = 7 * 24 * time.Hour
	MaxWindow     = 366 * 24 * time.Hour
	DefaultWindow = 30 * 24 * time.Hour
)

// maxName bounds a name, in bytes.
const maxName = 200

// Objective is a service level objective: how large a part of all events should be good.
type Objective struct {
	Name   string        // unique; label "slo" of all that comes of it
	Target float64       // percent of the events, such as 99.9
	Window time.Duration // that the budget is for; 0: DefaultWindow
	// Good and Total select counters of good and of all events: selectors, or expressions
	// of events a second over a range of $window.
	Good, Total string
	// ErrorRatio, in their place, is the part of bad events over a range of $window, from 0 to 1.
	ErrorRatio string
	Labels     map[string]string // of all that comes of it
}

// Fault is something wrong with one key of an objective.
type Fault struct {
	Key string // as in the config file
	Err error
}

// Validate completes the objective and returns every fault.
func (o *Objective) Validate(p parser.Parser) (faults []Fault) {
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	fault := func(key, format string, args ...any) {
		faults = append(faults, Fault{key, fmt.Errorf(format, args...)})
	}
	switch {
	case o.Name == "":
		fault("name", "it is missing")
	case len(o.Name) > maxName || !utf8.ValidString(o.Name) || strings.ContainsFunc(o.Name, unicode.IsControl):
		fault("name", "want at most %d bytes of printable text", maxName)
	}
	if !(o.Target > 0 && o.Target < 100) {
		fault("target", "want a percentage above 0 and below 100, such as 99.9")
	}
	if o.Window < MinWindow || o.Window > MaxWindow || o.Window%time.Hour != 0 {
		fault("window", "want whole hours from %s to %s", windowName(MinWindow), windowName(MaxWindow))
	}
	switch {
	case o.ErrorRatio != "" && o.Good+o.Total != "":
		fault("error-ratio", "give either this, or good and total")
	case o.ErrorRatio != "":
		if _, err := expand(p, o.ErrorRatio, 5*time.Minute, false); err != nil {
			fault("error-ratio", "%w", err)
		}
	default:
		for _, e := range []struct{ key, expr string }{{"good", o.Good}, {"total", o.Total}} {
			if e.expr == "" {
				fault(e.key, "it is missing: give good and total, or error-ratio")
			} else if _, err := expand(p, e.expr, 5*time.Minute, true); err != nil {
				fault(e.key, "%w", err)
			}
		}
	}
	for name, value := range o.Labels {
		if !prommodel.LegacyValidation.IsValidLabelName(name) || name == prommodel.MetricNameLabel || name == labelName || name == labelSeverity || name == "alertname" || name == "alertstate" {
			fault("labels", "%q can't be a label's name here", name)
		}
		if !utf8.ValidString(value) || value == "" {
			fault("labels", "%s: want a value in UTF-8", name)
		}
	}
	return faults
}

var (
	errNoWindow = errors.New("want an expression over a range of " + placeholder + ", such as sum(rate(errors_total[" + placeholder + "]))")
	errType     = errors.New("want an expression that gives an instant vector")
	errSelector = errors.New("want a plain selector of a counter, without offset or @, or an expression over a range of " + placeholder)
)

// expand writes an expression for one window. A plain selector, if that may be, becomes the
// sum of its rates.
func expand(p parser.Parser, s string, window time.Duration, selector bool) (string, error) {
	w := windowName(window)
	if strings.Contains(s, placeholder) {
		s = strings.ReplaceAll(s, placeholder, w)
		expr, err := p.ParseExpr(s)
		if err != nil {
			return "", err
		}
		if expr.Type() != parser.ValueTypeVector {
			return "", errType
		}
		return expr.String(), nil
	}
	if !selector {
		return "", errNoWindow
	}
	expr, err := p.ParseExpr(s)
	if err != nil {
		return "", err
	}
	vs, ok := expr.(*parser.VectorSelector)
	if !ok || vs.OriginalOffset != 0 || vs.OriginalOffsetExpr != nil || vs.Timestamp != nil || vs.StartOrEnd != 0 || vs.Anchored || vs.Smoothed {
		return "", errSelector
	}
	return fmt.Sprintf("sum(rate(%s[%s]))", vs, w), nil
}

// errorRatio is the PromQL of the part of bad events in a window: between 0 and 1, and
// nothing where there are no events.
func (o *Objective) errorRatio(p parser.Parser, window time.Duration) (string, error) {
	if o.ErrorRatio != "" {
		e, err := expand(p, o.ErrorRatio, window, false)
		return "clamp(" + e + ", 0, 1) >= 0", err
	}
	good, err1 := expand(p, o.Good, window, true)
	total, err2 := expand(p, o.Total, window, true)
	if !strings.Contains(o.Good, placeholder) && !strings.Contains(o.Total, placeholder) {
		good = good + " or vector(0)" // no good event ever: all are bad, and not nothing is known
	}
	return "clamp(1 - (" + good + ") / (" + total + "), 0, 1) >= 0", errors.Join(err1, err2)
}

// budget is the part of events that may be bad, rid of the noise of 100 - 99.9.
func (o *Objective) budget() float64 { return math.Round((100-o.Target)*1e10) / 1e12 }

// windowName writes whole days, hours or minutes.
func windowName(d time.Duration) string {
	for _, u := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if d%u.d == 0 {
			return strconv.FormatInt(int64(d/u.d), 10) + u.name
		}
	}
	return prommodel.Duration(d).String()
}
