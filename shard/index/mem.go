package index

import (
	"slices"

	"github.com/strandline-db/strandline/shard/model"
)

// Mem is the index of a head. Strings in it alias the keys given to Add.
type Mem struct {
	all    []uint32
	labels map[string]map[string][]uint32
	keys   map[uint32]string
}

// NewMem returns an empty index.
func NewMem() *Mem {
	return &Mem{labels: map[string]map[string][]uint32{}, keys: map[uint32]string{}}
}

// Add indexes the series id under the labels of its canonical key. Ids come in
// ascending order, each once.
func (m *Mem) Add(id uint32, key string) {
	m.all = append(m.all, id)
	m.keys[id] = key
	eachLabel(key, func(name, value string) {
		values := m.labels[name]
		if values == nil {
			values = map[string][]uint32{}
			m.labels[name] = values
		}
		values[value] = append(values[value], id)
	})
}

// Remove forgets the ids.
func (m *Mem) Remove(ids []uint32) {
	gone := make(map[uint32]bool, len(ids))
	touched := map[[2]string]bool{}
	for _, id := range ids {
		key, ok := m.keys[id]
		if !ok {
			continue
		}
		gone[id] = true
		eachLabel(key, func(name, value string) { touched[[2]string{name, value}] = true })
		delete(m.keys, id)
	}
	isGone := func(id uint32) bool { return gone[id] }
	m.all = without(m.all, isGone)
	for l := range touched {
		values := m.labels[l[0]]
		if left := without(values[l[1]], isGone); len(left) > 0 {
			values[l[1]] = left
			continue
		}
		if delete(values, l[1]); len(values) == 0 {
			delete(m.labels, l[0])
		}
	}
}

// without copies: readers may hold the old list.
func without(ids []uint32, gone func(uint32) bool) []uint32 {
	return slices.DeleteFunc(slices.Clone(ids), gone)
}

// eachLabel calls fn with the labels of a canonical key; the strings alias it.
func eachLabel(key string, fn func(name, value string)) {
	rest := []byte(key)
	for len(rest) > 0 {
		name, value, next, ok := model.NextKeyLabel(rest)
		if !ok {
			return
		}
		end := len(key) - len(next)
		v := key[end-len(value) : end]
		// Between name and value lie the tag and the length of the value.
		n := end - len(value) - 1 - uvarintLen(len(value))
		fn(key[n-len(name):n], v)
		rest = next
	}
}

func uvarintLen(n int) int {
	w := 1
	for ; n >= 0x80; n >>= 7 {
		w++
	}
	return w
}

// All implements Postings.
func (m *Mem) All() ([]uint32, error) { return m.all, nil }

// Of implements Postings.
func (m *Mem) Of(name, value string) ([]uint32, error) { return m.labels[name][value], nil }

// Values implements Postings.
func (m *Mem) Values(name string, fn func(string, func() ([]uint32, error)) (bool, error)) error {
	for v, ids := range m.labels[name] {
		if more, err := fn(v, func() ([]uint32, error) { return ids, nil }); err != nil || !more {
			return err
		}
	}
	return nil
}
