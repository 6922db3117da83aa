package wal

import (
	"maps"
	"slices"
	"sort"
)

// position says that a batch holds entries of a stream from index on.
type position struct {
	index uint64
	seq   uint64
	off   uint32
}

// stream is what the log knows of one stream.
type stream struct {
	base, last uint64 // live entries are base+1 .. last
	at         []position
	values     map[string][]byte
}

// state is the durable state of all streams. It changes only by absorb, both on
// start-up and after a batch has been synced.
type state struct {
	streams map[StreamID]*stream
}

func newState() *state { return &state{streams: map[StreamID]*stream{}} }

func (st *state) stream(id StreamID) *stream {
	s := st.streams[id]
	if s == nil {
		s = &stream{values: map[string][]byte{}}
		st.streams[id] = s
	}
	return s
}

// absorb applies one record of the batch at (seq, off).
func (st *state) absorb(r *record, seq uint64, off int64) error {
	s := st.stream(r.entry.Stream)
	i := r.entry.Index
	switch r.kind {
	case kindEntry:
		if i != s.last+1 {
			// On start-up the entries up to here may have lain in segments that are gone.
			// Then a later record says that they were dead; missing checks that.
			if len(s.at) > 0 {
				return ErrOrder
			}
		}
		s.last = i
		if n := len(s.at); n == 0 || s.at[n-1].seq != seq || s.at[n-1].off != uint32(off) {
			s.at = append(s.at, position{index: i, seq: seq, off: uint32(off)})
		}
	case kindFront:
		if s.base = max(s.base, i); s.base > s.last {
			s.last = s.base // the entries between lay in segments that are gone
		}
		s.trim()
	case kindBack:
		s.last = min(s.last, i-1)
		s.base = min(s.base, s.last) // lower only where the entries between lay in segments that are gone
		n := sort.Search(len(s.at), func(k int) bool { return s.at[k].index > s.last })
		s.at = slices.Clone(s.at[:n]) // a reader may hold the old one
	case kindReset:
		s.base, s.last, s.at = i, i, nil
	case kindValue:
		s.values[string(r.key)] = slices.Clone(r.entry.Data)
	}
	return nil
}

// trim forgets the positions of batches without a live entry.
func (s *stream) trim() {
	n := sort.Search(len(s.at), func(k int) bool { return s.at[k].index > s.base+1 })
	if s.base == s.last {
		n = len(s.at)
	} else {
		n--
	}
	if n > 0 {
		s.at = slices.Clone(s.at[n:])
	}
}

// missing returns a stream of which live entries lie in no segment that is there.
func (st *state) missing() (id StreamID, found bool) {
	for _, id := range st.ids() {
		s := st.streams[id]
		if len(s.at) == 0 && s.base < s.last || len(s.at) > 0 && s.at[0].index > s.base+1 {
			return id, true
		}
	}
	return 0, false
}

// locate returns the batch that holds the live entry at index.
func (s *stream) locate(index uint64) (position, bool) {
	if index <= s.base || index > s.last {
		return position{}, false
	}
	n := sort.Search(len(s.at), func(k int) bool { return s.at[k].index > index })
	return s.at[n-1], true
}

// ids returns the streams in order.
func (st *state) ids() []StreamID {
	return slices.Sorted(maps.Keys(st.streams))
}

// oldest returns the number of the oldest segment that holds a live entry.
func (st *state) oldest() (uint64, bool) {
	seq, found := uint64(0), false
	for _, s := range st.streams {
		if len(s.at) > 0 && (!found || s.at[0].seq < seq) {
			seq, found = s.at[0].seq, true
		}
	}
	return seq, found
}

// opening returns the records that begin a segment: they set up every stream, so
// that no older segment is needed for anything but its live entries.
func (st *state) opening(dst []byte) []byte {
	for _, id := range st.ids() {
		s := st.streams[id]
		if len(s.at) == 0 {
			dst = appendControl(dst, kindReset, id, s.last)
		} else {
			dst = appendControl(dst, kindFront, id, s.base)
		}
		for _, k := range slices.Sorted(maps.Keys(s.values)) {
			dst = appendValue(dst, id, k, s.values[k])
		}
	}
	return dst
}
