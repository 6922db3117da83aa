package live

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/schema"
	"github.com/prometheus/prometheus/util/kahansum"
)

// chain is an expression that can be computed from the samples as they come: a plain
// selector, perhaps a range function over it, perhaps aggregations over that.
type chain struct {
	matchers []*labels.Matcher
	window   int64     // ms: the range, or the lookback without a function
	fn       rangeFunc // nil: the newest sample counts
	keepName bool
	aggs     []agg
}

// agg is one aggregation, the innermost first.
type agg struct {
	op       parser.ItemType
	without  bool
	grouping []string
}

// chainOf returns the expression as a chain; nil if it is none.
func chainOf(expr parser.Expr, lookback int64) *chain {
	c := &chain{}
	for {
		switch e := unwrap(expr).(type) {
		case *parser.AggregateExpr:
			switch e.Op {
			case parser.SUM, parser.COUNT, parser.AVG, parser.MIN, parser.MAX, parser.GROUP:
			default:
				return nil
			}
			c.aggs = append(c.aggs, agg{op: e.Op, without: e.Without, grouping: slices.Clone(e.Grouping)})
			expr = e.Expr
			continue
		case *parser.Call:
			c.fn = rangeFuncs[e.Func.Name]
			if c.fn == nil || len(e.Args) != 1 {
				return nil
			}
			m, ok := e.Args[0].(*parser.MatrixSelector)
			if !ok || m.RangeExpr != nil {
				return nil
			}
			c.keepName = e.Func.Name == "last_over_time"
			c.window = m.Range.Milliseconds()
			expr = m.VectorSelector
		case *parser.VectorSelector:
			c.keepName, c.window = true, lookback
		}
		break
	}
	sel, ok := unwrap(expr).(*parser.VectorSelector)
	if !ok || !plain(sel) {
		return nil
	}
	c.matchers = sel.LabelMatchers
	slices.Reverse(c.aggs)
	return c
}

// output is a series of the result, or a group on the way to it.
type output struct {
	labels labels.Labels
	into   *output // of the next aggregation; nil: the result
	named  *named  // its number in the result

	pass  uint64 // the computation that the rest is of
	acc   accumulator
	value float64
}

// output returns the series of a level that ls leads to. Level 0 holds what the function
// gives, each other what an aggregation does.
func (s *incremental) output(level int, ls labels.Labels) *output {
	switch {
	case level > 0:
		ls = s.chain.aggs[level-1].group(ls)
	case !s.chain.keepName:
		ls = ls.DropReserved(schema.IsMetadataLabel)
	}
	key := string(ls.Bytes(nil))
	o := s.levels[level][key]
	if o == nil {
		o = &output{labels: ls}
		s.levels[level][key] = o
		if level < len(s.chain.aggs) {
			o.into = s.output(level+1, ls)
		}
	}
	return o
}

// fold aggregates the values of one level into the next.
func (s *incremental) fold(list []*output, op parser.ItemType) (groups []*output) {
	for _, o := range list {
		g := o.into
		if g.pass != s.pass {
			g.pass, g.acc = s.pass, accumulator{}
			groups = append(groups, g)
		}
		g.acc.add(op, o.value)
	}
	for _, g := range groups {
		g.value = g.acc.value(op)
	}
	return groups
}

// group returns the labels of the group that ls falls into.
func (a *agg) group(ls labels.Labels) labels.Labels {
	if len(a.grouping) == 0 && !a.without {
		return labels.EmptyLabels()
	}
	b := labels.NewBuilder(ls)
	if a.without {
		b.Del(a.grouping...)
		return b.Labels().DropReserved(schema.IsMetadataLabel)
	}
	return b.Keep(a.grouping...).Labels()
}

// accumulator folds the values of a group, with Prometheus' arithmetic.
type accumulator struct {
	n, v, c float64
	mean    mean
}

func (a *accumulator) add(op parser.ItemType, v float64) {
	a.n++
	switch op {
	case parser.SUM:
		if a.n == 1 {
			a.v = v
		} else {
			a.v, a.c = kahansum.Inc(v, a.v, a.c)
		}
	case parser.AVG:
		a.mean.add(v)
	case parser.MIN:
		if a.n == 1 || v < a.v || math.IsNaN(a.v) {
			a.v = v
		}
	case parser.MAX:
		if a.n == 1 || v > a.v || math.IsNaN(a.v) {
			a.v = v
		}
	}
}

func (a *accumulator) value(op parser.ItemType) float64 {
	switch op {
	case parser.SUM:
		return a.v + a.c
	case parser.AVG:
		return a.mean.value()
	case parser.COUNT:
		return a.n
	case parser.GROUP:
		return 1
	}
	return a.v
}
