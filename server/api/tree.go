package api

import (
	"strconv"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// node is a part of a syntax tree as parse_query shows it.
type node map[string]any

// tree turns an expression into nodes; nil for none or an unknown kind.
func tree(expr parser.Expr) any {
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		return node{"type": "aggregation", "op": n.Op.String(), "expr": tree(n.Expr), "param": tree(n.Param),
			"grouping": nonNil(n.Grouping), "without": n.Without}
	case *parser.BinaryExpr:
		return node{"type": "binaryExpr", "op": n.Op.String(), "lhs": tree(n.LHS), "rhs": tree(n.RHS),
			"matching": matching(n.VectorMatching), "bool": n.ReturnBool}
	case *parser.Call:
		args := make([]any, len(n.Args))
		for i, arg := range n.Args {
			args[i] = tree(arg)
		}
		fn := node{"name": n.Func.Name, "argTypes": n.Func.ArgTypes, "variadic": n.Func.Variadic, "returnType": n.Func.ReturnType}
		return node{"type": "call", "func": fn, "args": args}
	case *parser.MatrixSelector:
		vs, ok := n.VectorSelector.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		out := selector("matrixSelector", vs)
		out["range"], out["rangeExpr"] = n.Range.Milliseconds(), duration(n.RangeExpr)
		return out
	case *parser.SubqueryExpr:
		return node{"type": "subquery", "expr": tree(n.Expr), "range": n.Range.Milliseconds(), "rangeExpr": duration(n.RangeExpr),
			"offset": n.OriginalOffset.Milliseconds(), "offsetExpr": duration(n.OriginalOffsetExpr),
			"step": n.Step.Milliseconds(), "stepExpr": duration(n.StepExpr),
			"timestamp": n.Timestamp, "startOrEnd": preprocessor(n.StartOrEnd)}
	case *parser.DurationExpr:
		return duration(n)
	case *parser.NumberLiteral:
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(n.Val, 'f', -1, 64)}
	case *parser.ParenExpr:
		return node{"type": "parenExpr", "expr": tree(n.Expr)}
	case *parser.StringLiteral:
		return node{"type": "stringLiteral", "val": n.Val}
	case *parser.UnaryExpr:
		return node{"type": "unaryExpr", "op": n.Op.String(), "expr": tree(n.Expr)}
	case *parser.VectorSelector:
		return selector("vectorSelector", n)
	}
	return nil
}

func selector(kind string, n *parser.VectorSelector) node {
	return node{"type": kind, "name": n.Name, "offset": n.OriginalOffset.Milliseconds(), "offsetExpr": duration(n.OriginalOffsetExpr),
		"matchers": matchers(n.LabelMatchers), "timestamp": n.Timestamp, "startOrEnd": preprocessor(n.StartOrEnd),
		"anchored": n.Anchored, "smoothed": n.Smoothed}
}

func matching(m *parser.VectorMatching) any {
	if m == nil {
		return nil
	}
	return node{"card": m.Card.String(), "labels": nonNil(m.MatchingLabels), "on": m.On, "include": nonNil(m.Include),
		"fillValues": node{"lhs": m.FillValues.LHS, "rhs": m.FillValues.RHS}}
}

func matchers(list []*labels.Matcher) []node {
	out := make([]node, len(list))
	for i, m := range list {
		out[i] = node{"name": m.Name, "value": m.Value, "type": m.Type.String()}
	}
	return out
}

// duration shows an expression in the place of a duration, typed nils as none.
func duration(expr parser.Expr) any {
	switch n := expr.(type) {
	case *parser.DurationExpr:
		if n == nil {
			return nil
		}
		return node{"type": "durationExpr", "op": n.Op.String(), "lhs": duration(n.LHS), "rhs": duration(n.RHS), "wrapped": n.Wrapped}
	case *parser.NumberLiteral:
		if n == nil {
			return nil
		}
		return node{"type": "numberLiteral", "val": strconv.FormatFloat(n.Val, 'f', -1, 64), "duration": n.Duration}
	}
	return tree(expr)
}

func preprocessor(item parser.ItemType) any {
	if item == 0 {
		return nil
	}
	return item.String()
}

func nonNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
