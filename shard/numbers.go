package shard

// numbers finds series by number. Numbers ascend from 1 without large gaps, so a
// slice serves, at 8 bytes a number that was ever given.
type numbers struct {
	at   []*series
	live int
}

// get returns the series called no; nil if there is none.
func (n *numbers) get(no uint32) *series {
	if int(no) >= len(n.at) {
		return nil
	}
	return n.at[no]
}

// put adds a series under its number, which is free.
func (n *numbers) put(s *series) {
	for int(s.no) >= len(n.at) {
		n.at = append(n.at, nil)
	}
	n.at[s.no] = s
	n.live++
}

// drop removes the number, which is in use.
func (n *numbers) drop(no uint32) {
	n.at[no] = nil
	n.live--
}

// all yields the series in order of number.
func (n *numbers) all(yield func(*series) bool) {
	for _, s := range n.at {
		if s != nil && !yield(s) {
			return
		}
	}
}
