package selector

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// ErrNeither: a text is neither the name of a metric nor a plain selector. 400.
var ErrNeither = errors.New(`neither a metric's name nor a plain selector such as up{job="node"}`)

// Parse reads the name of a metric, or a selector with nothing but matchers. A name may
// have letters of any script, digits and _ : . - /, unless the text means something else
// in PromQL; any other stands in braces and quotes, {"a name"}. Errors wrap ErrNeither.
func Parse(p parser.Parser, s string) (*parser.VectorSelector, error) {
	if s == "" {
		return nil, fmt.Errorf("an empty text is %w", ErrNeither)
	}
	if model.LegacyValidation.IsValidMetricName(s) { // also where PromQL has a keyword of that name
		return named(s), nil
	}
	expr, err := p.ParseExpr(s)
	if err != nil {
		if simple(s) {
			return named(s), nil
		}
		return nil, fmt.Errorf("%s is %w (a name with other characters is written {%s}): %w", brief(s), ErrNeither, brief(s), err)
	}
	vs, ok := expr.(*parser.VectorSelector)
	if !ok || vs.OriginalOffset != 0 || vs.OriginalOffsetExpr != nil || vs.Timestamp != nil || vs.StartOrEnd != 0 || vs.Anchored || vs.Smoothed {
		return nil, fmt.Errorf("%s is %w", brief(s), ErrNeither)
	}
	return vs, nil
}

func named(s string) *parser.VectorSelector {
	return &parser.VectorSelector{LabelMatchers: []*labels.Matcher{{Type: labels.MatchEqual, Name: model.MetricNameLabel, Value: s}}}
}

// simple tells whether the text can only be meant as a name.
func simple(s string) bool {
	return model.UTF8Validation.IsValidMetricName(s) && strings.IndexFunc(s, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_:.-/", r)
	}) < 0
}

// brief quotes the text, not all of a long one.
func brief(s string) string {
	const most = 100
	if len(s) > most {
		return strconv.Quote(s[:most]) + "..."
	}
	return strconv.Quote(s)
}
