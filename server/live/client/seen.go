package client

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// series is what a number stands for, and the hash of its labels.
type series struct {
	labels map[string]string
	hash   uint64
}

func seriesOf(labels map[string]string) series {
	names := make([]string, 0, len(labels))
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	h := xxhash.New()
	for _, name := range names {
		_, _ = h.WriteString(name) // it never fails
		_, _ = h.Write([]byte{0xff})
		_, _ = h.WriteString(labels[name])
		_, _ = h.Write([]byte{0xff})
	}
	return series{labels, h.Sum64()}
}

// maxSeen is how many samples are remembered, at least: some 4 MiB.
const maxSeen = 1 << 16

// seen remembers the newest samples, to know those that a server sends again: for the
// hash of series and time, that of the value. The zero value has seen none.
type seen struct {
	young, old map[uint64]uint64
}

// add notes a sample and reports whether it is new: another value at its time is.
func (s *seen) add(series uint64, t int64, value []byte) bool {
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:8], series)
	binary.LittleEndian.PutUint64(key[8:], uint64(t))
	k, v := xxhash.Sum64(key[:]), xxhash.Sum64(value)
	had, ok := s.young[k]
	if !ok {
		had, ok = s.old[k]
	}
	if s.young == nil || len(s.young) >= maxSeen {
		s.young, s.old = map[uint64]uint64{}, s.young
	}
	s.young[k] = v
	return !ok || had != v
}
