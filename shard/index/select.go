package index

import (
	"cmp"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Select returns the series of src that all matchers accept, sorted; none at all
// means every series. The slice is the caller's. Errors are those of src.
func Select(src Source, matchers []*labels.Matcher) ([]uint32, error) {
	if len(matchers) == 0 {
		return cloneOf(src.All())
	}
	p := planOf(matchers)
	base, owned, err := p.base(src)
	if err != nil {
		return nil, err
	}
	for _, t := range p.subtract {
		if len(base) == 0 {
			return nil, nil
		}
		ids, err := t.ids(src)
		if err != nil {
			return nil, err
		}
		dst := base[:0]
		if !owned {
			dst = make([]uint32, 0, len(base))
		}
		base, owned = without(dst, base, ids), true
	}
	if !owned {
		base = slices.Clone(base)
	}
	return base, nil
}

func cloneOf(ids []uint32, err error) ([]uint32, error) {
	if err != nil {
		return nil, err
	}
	return slices.Clone(ids), nil
}

// term is a set of series: those that have the label name with a value that
// accept accepts. One without an accept and values stands for all that have it.
type term struct {
	name   string
	values []string // if not nil, the only values that count
	prefix string
	accept func(string) bool
	cost   int // rough order of evaluation
}

// plan is what matchers ask for: the intersection of some terms (all series, if
// there is none) without the union of others.
type plan struct {
	intersect, subtract []term
}

// planOf turns each matcher into a term. A matcher that refuses "" selects among
// the series that have the label. One that accepts "" is turned round: the series
// with a value that it refuses are taken out, and those without the label stay.
func planOf(matchers []*labels.Matcher) plan {
	var p plan
	for _, m := range matchers {
		switch {
		case m.Type == labels.MatchRegexp && m.Value == ".*":
			// Accepts everything.
		case m.Matches(""):
			p.subtract = append(p.subtract, refused(m))
		default:
			p.intersect = append(p.intersect, accepted(m))
		}
	}
	byCost := func(a, b term) int { return cmp.Compare(a.cost, b.cost) }
	slices.SortStableFunc(p.intersect, byCost)
	slices.SortStableFunc(p.subtract, byCost)
	return p
}

const (
	costValues = iota
	costHas
	costPrefix
	costScan
)

// accepted is the set of series with a value that m accepts; m refuses "".
func accepted(m *labels.Matcher) term {
	switch {
	case m.Type == labels.MatchEqual:
		return term{name: m.Name, values: []string{m.Value}, cost: costValues}
	case m.Type == labels.MatchNotEqual, m.Type == labels.MatchRegexp && m.Value == ".+":
		return term{name: m.Name, cost: costHas} // what refuses "" and is not "=" something is != ""
	}
	return scan(m, m.Matches)
}

// refused is the set of series with a value that m refuses; m accepts "".
func refused(m *labels.Matcher) term {
	switch {
	case m.Type == labels.MatchNotEqual:
		return term{name: m.Name, values: []string{m.Value}, cost: costValues}
	case m.Type == labels.MatchEqual, m.Type == labels.MatchNotRegexp && m.Value == ".+":
		return term{name: m.Name, cost: costHas}
	}
	return scan(m, func(v string) bool { return !m.Matches(v) })
}

// scan tries accept on the values of m's label, or on the few that m can tell of.
func scan(m *labels.Matcher, accept func(string) bool) term {
	t := term{name: m.Name, accept: accept, cost: costScan}
	// What m says of its pattern holds for the set looked for only if both are the
	// values that match the pattern.
	if (m.Type == labels.MatchRegexp) != m.Matches("") {
		if set := m.SetMatches(); len(set) > 0 {
			t.values, t.cost = set, costValues
		} else if t.prefix = m.Prefix(); t.prefix != "" {
			t.cost = costPrefix
		}
	}
	return t
}

// ids returns the term's series.
func (t *term) ids(src Source) ([]uint32, error) {
	if t.values == nil && t.accept == nil {
		return src.Has(t.name)
	}
	if len(t.values) == 1 && t.values[0] != "" && (t.accept == nil || t.accept(t.values[0])) {
		return src.Postings(t.name, t.values[0])
	}
	var out []uint32
	if t.values != nil {
		for _, v := range t.values {
			if v == "" || (t.accept != nil && !t.accept(v)) {
				continue
			}
			ids, err := src.Postings(t.name, v)
			if err != nil {
				return nil, err
			}
			out = append(out, ids...)
		}
		return sortSet(out), nil
	}
	err := src.Values(t.name, t.prefix, t.accept, func(_ string, ids []uint32) error {
		out = append(out, ids...)
		return nil
	})
	return sortSet(out), err
}

// base returns the intersection; owned tells whether the slice may be written to.
func (p *plan) base(src Source) (ids []uint32, owned bool, err error) {
	if len(p.intersect) == 0 {
		ids, err = src.All()
		return ids, false, err
	}
	lists := make([][]uint32, 0, len(p.intersect))
	for i := range p.intersect {
		ids, err := p.intersect[i].ids(src)
		if err != nil {
			return nil, false, err
		}
		if len(ids) == 0 {
			return nil, true, nil
		}
		lists = append(lists, ids)
	}
	if len(lists) == 1 {
		return lists[0], false, nil
	}
	slices.SortFunc(lists, func(a, b []uint32) int { return cmp.Compare(len(a), len(b)) })
	ids = intersect(make([]uint32, 0, len(lists[0])), lists[0], lists[1])
	for _, l := range lists[2:] {
		ids = intersect(ids[:0], ids, l)
	}
	return ids, true, nil
}

// LabelNames returns the sorted label names of the series that all matchers
// accept. The slice is the caller's.
func LabelNames(src Source, matchers []*labels.Matcher) ([]string, error) {
	names, err := src.Names()
	if err != nil || len(matchers) == 0 {
		return slices.Clone(names), err
	}
	ids, err := Select(src, matchers)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		found, err := anyOf(src, name, ids)
		if err != nil {
			return nil, err
		}
		if found {
			out = append(out, name)
		}
	}
	return out, nil
}

// anyOf tells whether a series among ids has the label.
func anyOf(src Source, name string, ids []uint32) (bool, error) {
	has, err := src.Has(name)
	return intersects(has, ids), err
}

// LabelValues returns the sorted values of a label among the series that all
// matchers accept. The slice is the caller's.
func LabelValues(src Source, name string, matchers []*labels.Matcher) ([]string, error) {
	var out []string
	if len(matchers) == 0 {
		err := src.ValueNames(name, func(v string) { out = append(out, v) })
		slices.Sort(out)
		return out, err
	}
	ids, err := Select(src, matchers)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	err = src.Values(name, "", nil, func(v string, has []uint32) error {
		if intersects(has, ids) {
			out = append(out, v)
		}
		return nil
	})
	slices.Sort(out)
	return out, err
}
