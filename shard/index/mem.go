package index

import (
	"maps"
	"slices"
	"strings"

	"github.com/strandline-db/strandline/shard/model"
)

// Mem is an inverted index in memory. It has no lock: see the package comment.
// It implements Source.
type Mem struct {
	all   []uint32
	names map[string]*memLabel
	lists [][]uint32 // of values with more than one series
	free  []uint32   // positions in lists that are not in use
	buf   []byte
}

// memLabel holds the values of one label.
type memLabel struct {
	values map[string]ref
	series int // that have the label
	peak   int // the most values since the map was made
}

// ref is a value's postings: one series, as most values of most labels have in a
// large fleet, or a position in lists.
type ref uint64

const isList ref = 1 << 32

// NewMem returns an empty index.
func NewMem() *Mem { return &Mem{names: map[string]*memLabel{}} }

// Len returns the number of series.
func (m *Mem) Len() int { return len(m.all) }

// Add takes in a series under an identifier that is not in use, best one larger
// than all before, which is an append to each list. key is canonical and is kept.
func (m *Mem) Add(id uint32, key string) {
	m.all = insert(m.all, id)
	m.buf = append(m.buf[:0], key...)
	for rest := m.buf; len(rest) > 0; {
		name, value, next, ok := model.NextKeyLabel(rest)
		if !ok {
			return // not canonical; what could be read is indexed
		}
		end := len(key) - len(next)
		m.addLabel(id, name, key[end-len(value):end])
		rest = next
	}
}

func (m *Mem) addLabel(id uint32, name []byte, value string) {
	l := m.names[string(name)]
	if l == nil {
		l = &memLabel{values: map[string]ref{}}
		m.names[string(name)] = l
	}
	l.series++
	r, known := l.values[value]
	switch {
	case !known:
		l.values[value] = ref(id)
		l.peak = max(l.peak, len(l.values))
	case r&isList != 0:
		list := &m.lists[uint32(r)]
		*list = insert(*list, id)
	default:
		l.values[value] = m.newList(insert([]uint32{uint32(r)}, id))
	}
}

func (m *Mem) newList(ids []uint32) ref {
	if n := len(m.free); n > 0 {
		i := m.free[n-1]
		m.free = m.free[:n-1]
		m.lists[i] = ids
		return isList | ref(i)
	}
	m.lists = append(m.lists, ids)
	return isList | ref(len(m.lists)-1)
}

func insert(ids []uint32, id uint32) []uint32 {
	if n := len(ids); n == 0 || ids[n-1] < id {
		return append(ids, id)
	}
	i, found := slices.BinarySearch(ids, id)
	if found {
		return ids
	}
	return slices.Insert(ids, i, id)
}

// Remove takes series out. It passes over the whole index once, whatever the
// number of series: gather them.
func (m *Mem) Remove(ids []uint32) {
	gone := sortSet(slices.Clone(ids))
	before := len(m.all)
	m.all = shrink(without(m.all[:0], m.all, gone))
	if len(m.all) == before {
		return
	}
	for name, l := range m.names {
		for value, r := range l.values {
			m.removeFrom(l, value, r, gone)
		}
		switch n := len(l.values); {
		case n == 0:
			delete(m.names, name)
		case n < l.peak/4:
			// A map never gives memory back: labels that churn would only ever grow it.
			fresh := make(map[string]ref, n)
			maps.Copy(fresh, l.values)
			l.values, l.peak = fresh, n
		}
	}
}

func (m *Mem) removeFrom(l *memLabel, value string, r ref, gone []uint32) {
	if r&isList == 0 {
		if _, found := slices.BinarySearch(gone, uint32(r)); found {
			delete(l.values, value)
			l.series--
		}
		return
	}
	list := m.lists[uint32(r)]
	n := len(list)
	list = shrink(without(list[:0], list, gone))
	l.series -= n - len(list)
	if len(list) > 1 {
		m.lists[uint32(r)] = list
		return
	}
	m.lists[uint32(r)] = nil
	m.free = append(m.free, uint32(r))
	if len(list) == 1 {
		l.values[value] = ref(list[0])
	} else {
		delete(l.values, value)
	}
}

// shrink gives back the room of a list that has lost most of its elements.
func shrink(ids []uint32) []uint32 {
	if cap(ids) > 64 && len(ids) < cap(ids)/2 {
		return slices.Clone(ids)
	}
	return ids
}

// ids returns a value's postings; one is where a single one may be put.
func (m *Mem) ids(r ref, one *[1]uint32) []uint32 {
	if r&isList != 0 {
		return m.lists[uint32(r)]
	}
	one[0] = uint32(r)
	return one[:]
}

// Names implements Source.
func (m *Mem) Names() ([]string, error) {
	return slices.Sorted(maps.Keys(m.names)), nil
}

// All implements Source.
func (m *Mem) All() ([]uint32, error) { return m.all, nil }

// Postings implements Source.
func (m *Mem) Postings(name, value string) ([]uint32, error) {
	l := m.names[name]
	if l == nil {
		return nil, nil
	}
	r, ok := l.values[value]
	if !ok {
		return nil, nil
	}
	return m.ids(r, new([1]uint32)), nil
}

// Has implements Source.
func (m *Mem) Has(name string) ([]uint32, error) {
	l := m.names[name]
	if l == nil {
		return nil, nil
	}
	if l.series == len(m.all) {
		return m.all, nil
	}
	var one [1]uint32
	out := make([]uint32, 0, l.series)
	for _, r := range l.values {
		out = append(out, m.ids(r, &one)...)
	}
	return sortSet(out), nil
}

// Values implements Source.
func (m *Mem) Values(name, prefix string, keep func(string) bool, emit func(string, []uint32) error) error {
	l := m.names[name]
	if l == nil {
		return nil
	}
	var one [1]uint32
	for v, r := range l.values {
		if !strings.HasPrefix(v, prefix) || (keep != nil && !keep(v)) {
			continue
		}
		if err := emit(v, m.ids(r, &one)); err != nil {
			return err
		}
	}
	return nil
}

// ValueNames implements Source.
func (m *Mem) ValueNames(name string, fn func(string)) error {
	if l := m.names[name]; l != nil {
		for v := range l.values {
			fn(v)
		}
	}
	return nil
}
