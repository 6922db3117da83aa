package alerts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/strandline-db/strandline/server/selector"
	"github.com/strandline-db/strandline/server/webhook"
)

// Bounds of a subscription.
const (
	MaxBody         = 64 << 10 // bytes of a request
	maxText         = 8 << 10  // bytes of a query
	maxName         = 128      // bytes
	maxLabels       = 32
	minSecret       = 16 // bytes
	maxSecret       = 256
	minInterval     = time.Second
	maxInterval     = time.Hour
	defaultInterval = 15 * time.Second
	maxFor          = 30 * 24 * time.Hour
)

// span is a duration in JSON: "5m" as Prometheus writes them, or a number of seconds.
type span time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *span) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		var seconds float64
		if err := json.Unmarshal(b, &seconds); err != nil || !(seconds >= 0 && seconds < math.MaxInt64/1e9) {
			return fmt.Errorf(`%.100s is no duration such as "5m", and no number of seconds`, b)
		}
		*d = span(seconds * 1e9)
		return nil
	}
	v, err := model.ParseDuration(s)
	if err != nil {
		return fmt.Errorf(`%.100q is no duration such as "5m", and no number of seconds`, s)
	}
	*d = span(v)
	return nil
}

// MarshalJSON implements json.Marshaler.
func (d span) MarshalJSON() ([]byte, error) { return json.Marshal(model.Duration(d).String()) }

// Subscription is what a user asked for, as it is stored.
type Subscription struct {
	ID         string            `json:"id"`
	Name       string            `json:"name,omitempty"`
	Metric     string            `json:"metric,omitempty"`
	Query      string            `json:"query,omitempty"` // instead of Metric and Labels
	Labels     map[string]string `json:"labels,omitempty"`
	Threshold  float64           `json:"threshold"`
	Comparison string            `json:"comparison"` // gt, ge, lt, le, eq or ne
	For        span              `json:"for,omitempty"`
	Interval   span              `json:"interval,omitempty"`
	Method     string            `json:"notification_method"`
	URL        string            `json:"url"`
	Secret     string            `json:"secret,omitempty"`
	Created    time.Time         `json:"created"`
}

// request is the body of a POST.
type request struct {
	Name       string            `json:"name"`
	Metric     string            `json:"metric"`
	Query      string            `json:"query"`
	Labels     map[string]string `json:"labels"`
	Threshold  *float64          `json:"threshold"`
	Comparison string            `json:"comparison"`
	For        span              `json:"for"`
	Interval   span              `json:"interval"`
	Method     string            `json:"notification_method"`
	URL        string            `json:"url"`
	Secret     string            `json:"secret"`
}

// operators are the comparisons, by both their names.
func operators() map[string]string {
	return map[string]string{"gt": ">", "ge": ">=", "gte": ">=", "lt": "<", "le": "<=", "lte": "<=", "eq": "==", "ne": "!=", "neq": "!="}
}

// canonical returns the short name of a comparison written in any way.
func canonical(s string) (string, bool) {
	op, ok := operators()[strings.ToLower(s)]
	if !ok {
		op = s
	}
	for _, name := range []string{"gt", "ge", "lt", "le", "eq", "ne"} {
		if operators()[name] == op {
			return name, true
		}
	}
	return "", false
}

// unread tells in a user's words why a body can't be read.
func unread(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return fmt.Sprintf("%q can't be a JSON %s", wrong.Field, wrong.Value)
	} else if ok || errors.Is(err, io.EOF) {
		return `the body must be a JSON object such as {"metric":"load","threshold":10,"comparison":">","notification_method":"webhook","url":"https://..."}`
	} else if errors.Is(err, io.ErrUnexpectedEOF) {
		return "the JSON object is cut off"
	}
	text := strings.TrimPrefix(err.Error(), "json: ")
	if strings.HasPrefix(text, "unknown field ") {
		text += "; known are name, metric, labels, query, threshold, comparison, for, interval, notification_method, url and secret"
	}
	return text
}

// Parse reads the body of a request. The error wraps ErrBadRequest, ErrTooLarge or, for the
// URL, one of the webhook package's.
func Parse(body []byte, p parser.Parser, policy *webhook.Policy) (*Subscription, error) {
	if len(body) > MaxBody {
		return nil, ErrTooLarge
	}
	var r request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %s", ErrBadRequest, unread(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: something follows the JSON object", ErrBadRequest)
	}
	s := &Subscription{Name: r.Name, Metric: r.Metric, Query: r.Query, Labels: r.Labels, For: r.For, Interval: r.Interval,
		Method: r.Method, URL: r.URL, Secret: r.Secret}
	if r.Threshold == nil {
		return nil, fmt.Errorf("%w: threshold is missing", ErrBadRequest)
	}
	s.Threshold = *r.Threshold
	if s.Interval == 0 {
		s.Interval = span(defaultInterval)
	}
	var ok bool
	if s.Comparison, ok = canonical(r.Comparison); !ok {
		return nil, fmt.Errorf("%w: comparison must be one of gt, ge, lt, le, eq, ne or >, >=, <, <=, ==, !=", ErrBadRequest)
	}
	if err := s.validate(); err != nil {
		return nil, err
	}
	if _, err := s.condition(p); err != nil {
		return nil, err
	}
	if _, err := policy.Check(s.URL); err != nil {
		return nil, err
	}
	return s, nil
}

// validate checks all but query and URL.
func (s *Subscription) validate() error {
	for _, c := range []struct {
		bad bool
		why string
	}{
		{(s.Metric == "") == (s.Query == ""), "give either metric or query"},
		{s.Query != "" && len(s.Labels) > 0, "labels select series of a metric; write them into the query"},
		{len(s.Query) > maxText || len(s.Metric) > maxText, "the query is too long"},
		{len(s.Labels) > maxLabels, "there are more than 32 labels"},
		{len(s.Name) > maxName || !utf8.ValidString(s.Name), "name must be at most 128 bytes of UTF-8"},
		{!utf8.ValidString(s.Metric), "metric must be UTF-8"},
		{s.Method != "webhook", `notification_method must be "webhook"`},
		{s.Secret != "" && (len(s.Secret) < minSecret || len(s.Secret) > maxSecret), "secret must have 16 to 256 bytes"},
		{time.Duration(s.Interval) < minInterval || time.Duration(s.Interval) > maxInterval, "interval must be between 1s and 1h"},
		{s.For < 0 || time.Duration(s.For) > maxFor, "for must be at most 30d"},
	} {
		if c.bad {
			return fmt.Errorf("%w: %s", ErrBadRequest, c.why)
		}
	}
	for name, value := range s.Labels {
		if !model.UTF8Validation.IsValidLabelName(name) || name == model.MetricNameLabel || !utf8.ValidString(value) || len(name)+len(value) > maxText {
			return fmt.Errorf("%w: the label %.100q can't select series", ErrBadRequest, name)
		}
	}
	return nil
}

// condition returns the expression whose every series is an alert.
func (s *Subscription) condition(p parser.Parser) (string, error) {
	text := s.Query
	if s.Metric != "" {
		vs, err := selector.Parse(p, s.Metric)
		if err != nil {
			return "", fmt.Errorf(`%w: metric: %w; give an expression as "query", or look at its values by /api/v1/live`, ErrBadRequest, err)
		}
		for name, value := range s.Labels {
			vs.LabelMatchers = append(vs.LabelMatchers, &labels.Matcher{Type: labels.MatchEqual, Name: name, Value: value})
		}
		text = vs.String()
	}
	expr, err := p.ParseExpr(text)
	if err != nil {
		return "", fmt.Errorf("%w: query: %w", ErrBadRequest, err)
	}
	text = expr.String()
	switch expr.Type() {
	case parser.ValueTypeVector:
	case parser.ValueTypeScalar:
		text = "vector(" + text + ")"
	default:
		return "", fmt.Errorf("%w: query: it gives a %s, not a vector or a scalar", ErrBadRequest, expr.Type())
	}
	text = "(" + text + ") " + operators()[s.Comparison] + " " + strconv.FormatFloat(s.Threshold, 'g', -1, 64)
	if _, err := p.ParseExpr(text); err != nil {
		return "", fmt.Errorf("%w: query: %w", ErrBadRequest, err)
	}
	return text, nil
}

// title is the alert's name.
func (s *Subscription) title() string {
	switch {
	case s.Name != "":
		return s.Name
	case s.Metric != "":
		return s.Metric
	}
	return s.ID
}
