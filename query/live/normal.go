package live

import (
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// normalise returns the expression in the form that those who mean the same share:
// matchers sorted, a metric's name before the braces, and no parentheses that change
// nothing. It works in place.
func normalise(e parser.Expr) parser.Expr {
	switch n := e.(type) {
	case *parser.ParenExpr:
		n.Expr = normalise(n.Expr)
		switch n.Expr.(type) {
		case *parser.VectorSelector, *parser.Call, *parser.AggregateExpr, *parser.ParenExpr:
			return n.Expr // which bind as strongly without
		}
	case *parser.VectorSelector:
		slices.SortStableFunc(n.LabelMatchers, func(a, b *labels.Matcher) int { return strings.Compare(a.String(), b.String()) })
		n.Name = nameOf(n)
	case *parser.MatrixSelector:
		n.VectorSelector = normalise(n.VectorSelector)
	case *parser.SubqueryExpr:
		n.Expr = normalise(n.Expr)
	case *parser.UnaryExpr:
		n.Expr = normalise(n.Expr)
	case *parser.BinaryExpr:
		n.LHS, n.RHS = normalise(n.LHS), normalise(n.RHS)
	case *parser.AggregateExpr:
		n.Expr = unwrap(normalise(n.Expr))
		if n.Param != nil {
			n.Param = unwrap(normalise(n.Param))
		}
	case *parser.Call:
		for i, arg := range n.Args {
			if n.Func.Name == "info" && i == 1 {
				continue // braces alone, which must not look like a metric
			}
			n.Args[i] = unwrap(normalise(arg))
		}
	}
	return e
}

// nameOf returns the metric's name that stands before the braces, or may do so.
func nameOf(n *parser.VectorSelector) string {
	if n.Name != "" {
		return n.Name
	}
	found := ""
	for _, m := range n.LabelMatchers {
		if m.Name != model.MetricNameLabel {
			continue
		}
		if m.Type != labels.MatchEqual || found != "" {
			return ""
		}
		found = m.Value
	}
	if found == "" {
		return ""
	}
	lex := parser.Lex(found)
	var first, next parser.Item
	lex.NextItem(&first)
	lex.NextItem(&next)
	word := first.Typ == parser.IDENTIFIER || first.Typ == parser.METRIC_IDENTIFIER // not a keyword
	if !word || next.Typ != parser.EOF || first.Val != found {
		return ""
	}
	return found
}

// ordered tells whether the order of matchers matters: absent makes the labels of its
// result from them, and if some are of the same label it is the first that counts.
func ordered(e parser.Expr) bool {
	found := false
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		call, ok := n.(*parser.Call)
		if !ok || !strings.HasPrefix(call.Func.Name, "absent") {
			return nil
		}
		for _, ms := range parser.ExtractSelectors(call) {
			seen := map[string]bool{}
			for _, m := range ms {
				found = found || seen[m.Name]
				seen[m.Name] = true
			}
		}
		return nil
	})
	return found
}
