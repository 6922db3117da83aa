package index

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Postings is a source of sorted lists of ids. Lists are read-only to the caller.
type Postings interface {
	// All returns every id.
	All() ([]uint32, error)
	// Of returns the ids with the label; nil if there is none.
	Of(name, value string) ([]uint32, error)
	// Values calls fn with every value of the label and its ids, in any order, until
	// fn returns false.
	Values(name string, fn func(value string, ids func() ([]uint32, error)) (bool, error)) error
}

// Select returns the sorted ids that all matchers hold for, with Prometheus'
// meaning: a label that is not there has the empty value.
func Select(p Postings, ms []*labels.Matcher) ([]uint32, error) {
	var out []uint32
	started := false
	meet := func(ids []uint32) {
		if !started {
			out, started = slices.Clone(ids), true
			return
		}
		out = intersect(out, ids)
	}
	var minus [][]uint32
	for _, m := range ms {
		if m.Matches("") {
			ids, err := failing(p, m)
			if err != nil {
				return nil, err
			}
			minus = append(minus, ids)
			continue
		}
		ids, err := holding(p, m)
		if err != nil {
			return nil, err
		}
		if meet(ids); len(out) == 0 {
			return nil, nil
		}
	}
	if !started {
		all, err := p.All()
		if err != nil {
			return nil, err
		}
		meet(all)
	}
	for _, ids := range minus {
		out = subtract(out, ids)
	}
	return out, nil
}

// holding returns the ids whose value, which is not empty, the matcher accepts.
func holding(p Postings, m *labels.Matcher) ([]uint32, error) {
	if m.Type == labels.MatchEqual {
		return p.Of(m.Name, m.Value)
	}
	if set := m.SetMatches(); m.Type == labels.MatchRegexp && len(set) > 0 {
		var lists [][]uint32
		for _, v := range set {
			ids, err := p.Of(m.Name, v)
			if err != nil {
				return nil, err
			}
			lists = append(lists, ids)
		}
		return merge(lists), nil
	}
	return valuesThat(p, m.Name, m.Matches)
}

// failing returns the ids with a value that the matcher, which accepts the empty
// one, does not accept.
func failing(p Postings, m *labels.Matcher) ([]uint32, error) {
	if m.Type == labels.MatchNotEqual && m.Value != "" {
		return p.Of(m.Name, m.Value)
	}
	return valuesThat(p, m.Name, func(v string) bool { return !m.Matches(v) })
}

func valuesThat(p Postings, name string, want func(string) bool) ([]uint32, error) {
	var lists [][]uint32
	err := p.Values(name, func(v string, ids func() ([]uint32, error)) (bool, error) {
		if want(v) {
			l, err := ids()
			if err != nil {
				return false, err
			}
			lists = append(lists, l)
		}
		return true, nil
	})
	return merge(lists), err
}

// merge unites sorted lists.
func merge(lists [][]uint32) []uint32 {
	switch len(lists) {
	case 0:
		return nil
	case 1:
		return lists[0]
	}
	out := slices.Concat(lists...)
	slices.Sort(out)
	return slices.Compact(out)
}

// intersect keeps in a, which it overwrites, what b has too.
func intersect(a, b []uint32) []uint32 {
	out := a[:0]
	for _, x := range a {
		i := gallop(b, x)
		if b = b[i:]; len(b) == 0 {
			break
		}
		if b[0] == x {
			out = append(out, x)
		}
	}
	return out
}

// subtract removes from a, which it overwrites, what b has.
func subtract(a, b []uint32) []uint32 {
	out := a[:0]
	for _, x := range a {
		b = b[gallop(b, x):]
		if len(b) == 0 || b[0] != x {
			out = append(out, x)
		}
	}
	return out
}

// gallop returns the position of the first element of b that is not less than x, in
// time logarithmic in that position.
func gallop(b []uint32, x uint32) int {
	hi := 1
	for hi < len(b) && b[hi] < x {
		hi *= 2
	}
	lo := hi / 2
	if hi == 1 {
		lo = 0
	}
	i, _ := slices.BinarySearch(b[lo:min(hi+1, len(b))], x)
	return lo + i
}
