package live

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// plan is a query, understood.
type plan struct {
	text     string // normalised, if the query can be
	expr     parser.Expr
	matchers []*labels.Matcher // of a plain selector, for samples mode
	chain    *chain            // nil: it must be stepped
	reaches  []reach           // what it reads
	// byStep says that a range query would not give what instant queries give: the
	// expression names the start or the end of the range.
	byStep bool
}

// plan parses and normalises a request's query. Errors are of kind BadData.
func (h *Hub) plan(req *Request) (*plan, error) {
	expr, err := h.engine.Parser().ParseExpr(req.Query)
	if err != nil {
		return nil, badData("%w", err)
	}
	p := &plan{text: req.Query}
	if !ordered(expr) {
		expr = normalise(expr)
		p.text = expr.String()
	}
	p.expr = expr
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.VectorSelector:
			p.byStep = p.byStep || n.StartOrEnd != 0
		case *parser.SubqueryExpr:
			p.byStep = p.byStep || n.StartOrEnd != 0
		}
		return nil
	})
	switch expr.Type() {
	case parser.ValueTypeVector, parser.ValueTypeScalar:
	default:
		return nil, badData("a live query gives a vector or a scalar, not a %s; put a function around it", parser.DocumentedType(expr.Type()))
	}
	if req.Samples {
		sel, ok := unwrap(expr).(*parser.VectorSelector)
		if !ok || !plain(sel) {
			return nil, badData("samples can be had of a plain selector only, such as up{job=\"node\"}, not of %s; leave mode out to have its results", p.text)
		}
		p.matchers = sel.LabelMatchers
	}
	o := h.engine.Options()
	p.reaches = reachOf(expr, o.LookbackDelta)
	if c := chainOf(expr, o.LookbackDelta.Milliseconds()); c != nil && !o.DelayedNameRemoval && !(o.StartTimestamps && c.fn != nil) {
		p.chain = c
	}
	return p, nil
}

// unwrap takes parentheses off.
func unwrap(e parser.Expr) parser.Expr {
	for {
		p, ok := e.(*parser.ParenExpr)
		if !ok {
			return e
		}
		e = p.Expr
	}
}

// plain tells whether a selector has nothing but matchers.
func plain(s *parser.VectorSelector) bool {
	return s.OriginalOffset == 0 && s.OriginalOffsetExpr == nil && s.Timestamp == nil && s.StartOrEnd == 0 && !s.Anchored && !s.Smoothed
}
