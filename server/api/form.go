package api

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	prommodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/valyala/fasthttp"
)

// maxPoints is Prometheus' bound on the points of a series in a range query.
const maxPoints = 11000

// minTime and maxTime are Prometheus' ends of an open time range.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
)

// form reads the arguments of a request: those of a POST form come before those
// of the URL. All strings are copies.
type form struct {
	rc *fasthttp.RequestCtx
}

func (f *form) get(name string) string {
	if f.rc.IsPost() {
		if args := f.rc.PostArgs(); args.Has(name) {
			return string(args.Peek(name))
		}
	}
	return string(f.rc.QueryArgs().Peek(name))
}

func (f *form) all(name string) []string {
	var out []string
	add := func(list [][]byte) {
		for _, v := range list {
			out = append(out, string(v))
		}
	}
	if f.rc.IsPost() {
		add(f.rc.PostArgs().PeekMulti(name))
	}
	add(f.rc.QueryArgs().PeekMulti(name))
	return out
}

// known refuses parameters that are not among names, if these are not nil: one that is
// misspelt must not be as if it was not there.
func (f *form) known(names []string) error {
	if names == nil {
		return nil
	}
	lists := []*fasthttp.Args{f.rc.QueryArgs()}
	if f.rc.IsPost() {
		lists = append(lists, f.rc.PostArgs())
	}
	for _, args := range lists {
		for name := range args.All() {
			switch {
			case len(names) == 0:
				return badData(fmt.Errorf("unknown parameter %.100q: this path takes none", name))
			case !slices.Contains(names, string(name)):
				return badData(fmt.Errorf("unknown parameter %.100q: known are %s", name, strings.Join(names, ", ")))
			}
		}
	}
	return nil
}

func (f *form) header(name string) string { return string(f.rc.Request.Header.Peek(name)) }

// limit returns the parameter limit; 0: none.
func (f *form) limit() (int, error) {
	s := f.get("limit")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err == nil && n < 0 {
		err = errors.New("limit must be non-negative")
	}
	if err != nil {
		return 0, badParam(err, "limit")
	}
	return n, nil
}

// time returns a time parameter, or def if it is not given.
func (f *form) time(name string, def time.Time) (time.Time, error) {
	s := f.get(name)
	if s == "" {
		return def, nil
	}
	t, err := parseTime(s)
	if err != nil {
		return t, badParam(fmt.Errorf("invalid time value for '%s': %w", name, err), name)
	}
	return t, nil
}

// span returns start and end, open where they are not given.
func (f *form) span() (start, end time.Time, err error) {
	if start, err = f.time("start", minTime); err != nil {
		return start, end, err
	}
	end, err = f.time("end", maxTime)
	return start, end, err
}

// matchers returns the selectors in match[]. Each must name something.
func (f *form) matchers(p parser.Parser) ([][]*labels.Matcher, error) {
	sets, err := p.ParseMetricSelectors(f.all("match[]"))
	if err != nil {
		return nil, err
	}
	for _, set := range sets {
		if !selective(set) {
			return nil, errors.New("match[] must contain at least one non-empty matcher")
		}
	}
	return sets, nil
}

func selective(set []*labels.Matcher) bool {
	for _, m := range set {
		if m != nil && !m.Matches("") {
			return true
		}
	}
	return false
}

// parseTime reads seconds since 1970 or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if v, err := strconv.ParseFloat(s, 64); err == nil {
		sec, frac := math.Modf(v)
		// Milliseconds, so that the float's rounding does not show.
		frac = math.Round(frac*1000) / 1000
		return time.Unix(int64(sec), int64(frac*float64(time.Second))).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	// time.Parse knows years of four digits only; these two must work anyway.
	for _, t := range []time.Time{minTime, maxTime} {
		if s == t.Format(time.RFC3339Nano) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// parseDuration reads seconds or a duration such as 5m.
func parseDuration(s string) (time.Duration, error) {
	if v, err := strconv.ParseFloat(s, 64); err == nil {
		ns := v * float64(time.Second)
		// The bounds are floats: 2^63 itself does not fit, and NaN compares with nothing.
		if !(ns < float64(math.MaxInt64) && ns >= float64(math.MinInt64)) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	if d, err := prommodel.ParseDuration(s); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
}
