package query

import (
	"slices"
	"strings"
	"time"

	commonmodel "github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/strandline-db/strandline/query/partial"
)

// plan finds the aggregations of a query that can be done in parts.
type plan struct {
	e      *Engine
	stmt   *parser.EvalStmt
	text   string
	starts bool // rate() and kin use start timestamps
	parts  []*part
}

// walk looks for aggregations in an expression, the outermost that will do. once says
// that it is evaluated at the first step alone; put replaces it. What is inside of a
// subquery is evaluated at other times, and info() looks at the expression itself.
func (p *plan) walk(expr parser.Expr, once bool, put func(parser.Expr)) {
	switch n := expr.(type) {
	case *parser.AggregateExpr:
		if req := p.request(n, once); req != nil {
			p.parts = append(p.parts, &part{req: req, place: put, at: n})
			return
		}
		p.walk(n.Expr, once, func(x parser.Expr) { n.Expr = x })
		p.walk(n.Param, once, func(x parser.Expr) { n.Param = x })
	case *parser.BinaryExpr:
		p.walk(n.LHS, once, func(x parser.Expr) { n.LHS = x })
		p.walk(n.RHS, once, func(x parser.Expr) { n.RHS = x })
	case *parser.Call:
		for i := range n.Args {
			if n.Func.Name != "info" {
				p.walk(n.Args[i], once, func(x parser.Expr) { n.Args[i] = x })
			}
		}
	case *parser.ParenExpr:
		p.walk(n.Expr, once, func(x parser.Expr) { n.Expr = x })
	case *parser.UnaryExpr:
		p.walk(n.Expr, once, func(x parser.Expr) { n.Expr = x })
	case *parser.StepInvariantExpr:
		p.walk(n.Expr, true, func(x parser.Expr) { n.Expr = x })
	}
}

// reserved are the labels that go with the metric's name.
var reserved = []string{commonmodel.MetricNameLabel, "__type__", "__unit__"}

func isReserved(label string) bool { return slices.Contains(reserved, label) }

// partialOps are the aggregations that can be done in parts. The others are not: quantile
// needs all values of a group at one place, and stddev and stdvar are computed in one
// pass whose rounding depends on the order of the series. What topk, bottomk, limitk and
// limit_ratio pick among equal values depends on that order too, and equal ones are
// common: zeros of counters that stand still. count_values would make a group of each value.
var partialOps = map[parser.ItemType]partial.Op{
	parser.SUM: partial.Sum, parser.AVG: partial.Avg, parser.MIN: partial.Min,
	parser.MAX: partial.Max, parser.COUNT: partial.Count, parser.GROUP: partial.Group,
}

// request returns what to ask for an aggregation, nil if it can't be done in parts.
func (p *plan) request(n *parser.AggregateExpr, once bool) *partial.Request {
	op, ok := partialOps[n.Op]
	if !ok || p.stmt.Interval > 0 && p.stmt.Interval < time.Millisecond || !partial.Plain(p.stmt.Start) || !partial.Plain(p.stmt.End) {
		return nil
	}
	s := &separable{}
	if !s.expr(n.Expr) {
		return nil
	}
	text, ok := p.excerpt(n.Expr)
	if !ok {
		return nil
	}
	req := &partial.Request{
		Op: op, Grouping: slices.Clone(n.Grouping), Without: n.Without, Text: text, Once: once,
		Start: p.stmt.Start, End: p.stmt.End, Step: p.stmt.Interval, Lookback: p.stmt.LookbackDelta,
		StartTimestamps: p.starts, MaxSeries: p.e.opts.MaxSeries,
	}
	if n.Without {
		req.Grouping = append(req.Grouping, reserved...)
	}
	slices.Sort(req.Grouping)
	if s.drops && p.e.opts.DelayedNameRemoval && !n.Without && slices.ContainsFunc(n.Grouping, isReserved) {
		return nil // the name is to be dropped after it has told groups apart
	}
	if s.drops {
		// Series of two metrics may become one, from different nodes.
		i := slices.IndexFunc(s.selector.LabelMatchers, func(m *labels.Matcher) bool {
			return m.Name == commonmodel.MetricNameLabel && m.Type == labels.MatchEqual && m.Value != ""
		})
		if i < 0 {
			return nil
		}
		req.Metric = s.selector.LabelMatchers[i].Value
	}
	label := p.e.replicaLabel()
	if !slices.ContainsFunc(s.selector.LabelMatchers, func(m *labels.Matcher) bool { return m.Name == label }) {
		req.ReplicaLabel = label // otherwise the series are seen as they are stored
	}
	return req
}

// excerpt cuts an expression out of the query. It is told whether it could be: what is
// cut out must read as what it was.
func (p *plan) excerpt(x parser.Expr) (string, bool) {
	pos := x.PositionRange()
	if pos.Start < 0 || int(pos.End) > len(p.text) || pos.Start >= pos.End {
		return "", false
	}
	text := []byte(p.text[:pos.End])
	for i := range text[:pos.Start] {
		if text[i] != '\n' {
			text[i] = ' '
		}
	}
	again, err := p.e.parser.ParseExpr(string(text))
	if err != nil {
		return "", false
	}
	again, err = promql.PreprocessExpr(again, p.stmt.Start, p.stmt.End, p.stmt.Interval)
	return string(text), err == nil && again.String() == x.String()
}

// separable tells whether an expression can be worked out for each series by itself. What is
// not is read: other aggregations inside of one, and operators between vectors, whose
// series may lie at different nodes.
type separable struct {
	selector *parser.VectorSelector // its only one
	drops    bool                   // it may drop the metric's name
}

func (s *separable) expr(x parser.Expr) bool {
	switch n := x.(type) {
	case *parser.VectorSelector:
		s.selector = n
		return !n.Anchored && !n.Smoothed
	case *parser.MatrixSelector:
		return s.expr(n.VectorSelector)
	case *parser.SubqueryExpr:
		// Without a step it would have that of the node's own settings.
		return n.Step > 0 && s.expr(n.Expr)
	case *parser.ParenExpr:
		return s.expr(n.Expr)
	case *parser.StepInvariantExpr:
		return s.expr(n.Expr)
	case *parser.UnaryExpr:
		s.drops = true
		return s.expr(n.Expr)
	case *parser.BinaryExpr:
		s.drops = true
		return n.Op != parser.TRIM_UPPER && n.Op != parser.TRIM_LOWER &&
			(constant(n.LHS) && s.expr(n.RHS) || constant(n.RHS) && s.expr(n.LHS))
	case *parser.Call:
		if !strings.Contains(separableFunctions, " "+n.Func.Name+" ") || len(n.Args) == 0 {
			return false
		}
		s.drops = s.drops || n.Func.Name != "last_over_time" && n.Func.Name != "first_over_time"
		of := slices.IndexFunc(n.Args, func(a parser.Expr) bool { return !constant(a) })
		return of >= 0 && s.expr(n.Args[of]) &&
			!slices.ContainsFunc(n.Args[of+1:], func(a parser.Expr) bool { return !constant(a) })
	}
	return false
}

// separableFunctions give a series for each series of their only vector.
const separableFunctions = " abs acos acosh asin asinh atan atanh avg_over_time ceil changes clamp clamp_max clamp_min cos cosh" +
	" count_over_time day_of_month day_of_week day_of_year days_in_month deg delta deriv double_exponential_smoothing exp" +
	" first_over_time floor histogram_avg histogram_count histogram_stddev histogram_stdvar histogram_sum hour idelta increase" +
	" irate last_over_time ln log10 log2 mad_over_time max_over_time min_over_time minute month predict_linear" +
	" present_over_time quantile_over_time rad rate resets round sgn sin sinh sqrt stddev_over_time stdvar_over_time" +
	" sum_over_time tan tanh timestamp ts_of_first_over_time ts_of_last_over_time ts_of_max_over_time ts_of_min_over_time year "

// constant tells whether an expression is a scalar that needs no data.
func constant(x parser.Expr) bool {
	if x.Type() != parser.ValueTypeScalar {
		return false
	}
	selects := false
	parser.Inspect(x, func(n parser.Node, _ []parser.Node) error {
		_, is := n.(*parser.VectorSelector)
		selects = selects || is
		return nil
	})
	return !selects
}
