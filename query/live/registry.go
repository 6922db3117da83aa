package live

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// named is a series of an evaluation's results, with its number.
type named struct {
	SeriesDef
	seq  uint64 // of the newest event that speaks of it
	gone bool   // forgotten: whoever caches it must ask again
}

// registry numbers label sets. Only the evaluation's run changes it, under its lock.
type registry struct {
	byHash map[uint64][]*named
	defs   []SeriesDef // in order of number; a prefix never changes, see forget
	all    []*named    // beside defs
	next   uint32
	swept  int // length after the last forget
}

func newRegistry() registry {
	return registry{byHash: map[uint64][]*named{}}
}

// find returns the series with these labels; nil if it has no number.
func (r *registry) find(ls labels.Labels) *named {
	for _, n := range r.byHash[ls.Hash()] {
		if labels.Equal(n.Labels, ls) {
			return n
		}
	}
	return nil
}

// add numbers a label set that has no number yet.
func (r *registry) add(ls labels.Labels) *named {
	n := &named{SeriesDef: SeriesDef{ID: r.next, Labels: ls}}
	r.next++
	h := ls.Hash()
	r.byHash[h] = append(r.byHash[h], n)
	r.defs = append(r.defs, n.SeriesDef)
	r.all = append(r.all, n)
	return n
}

// between returns the definitions with numbers in [from, to).
func (r *registry) between(from, to uint32) []SeriesDef {
	at := func(id uint32) int {
		i, _ := slices.BinarySearchFunc(r.defs, id, func(d SeriesDef, id uint32) int { return int(d.ID) - int(id) })
		return i
	}
	i, j := at(from), at(to)
	return r.defs[i:j:j]
}

// crowded tells that a forget may be worth while.
func (r *registry) crowded() bool { return len(r.all) > 2*r.swept+256 }

// forget drops the series that no event from tail on speaks of and that are not in
// used. What between has handed out stays as it was.
func (r *registry) forget(tail uint64, used map[uint32]struct{}) {
	var defs []SeriesDef
	var all []*named
	for _, n := range r.all {
		if _, in := used[n.ID]; in || n.seq >= tail {
			defs, all = append(defs, n.SeriesDef), append(all, n)
			continue
		}
		n.gone = true
		h := n.Labels.Hash()
		list := slices.DeleteFunc(r.byHash[h], func(x *named) bool { return x == n })
		if r.byHash[h] = list; len(list) == 0 {
			delete(r.byHash, h)
		}
	}
	r.defs, r.all, r.swept = defs, all, len(all)
}
