package model

import (
	"encoding/binary"
	"fmt"
	"sort"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
)

// A label key is the identity of a series as bytes: its labels as remote-write
// 1.0 puts them on the wire (field 1 of TimeSeries, each a Label message with
// the name in field 1 and the value in field 2), one after another.
//
//	0a <len> 0a <len> name 12 <len> value   0a <len> 0a <len> ...
//
// This form is chosen so that the label bytes of a well-behaved request are the
// key: a known series is found by hashing them where they lie, and no label is
// decoded. A key is canonical when its names are sorted and unique, no name or
// value is empty, every length is a minimal varint and all text is valid UTF-8.
// Only canonical keys are stored.

// HashVersion names the function behind HashKey. It is recorded in each data
// folder, since the shard of a series follows from it.
const HashVersion = 1

// PairHashVersion is that of folders which place series by PairHash.
const PairHashVersion = 2

// HashKey hashes a canonical key (xxHash64, seed 0).
func HashKey(key []byte) uint64 { return xxhash.Sum64(key) }

// ShardOf maps a key's hash to one of n shards by its high bits, so that the low
// bits stay useful to hash tables inside the shard.
func ShardOf(hash uint64, n int) int {
	return int((hash >> 32) * uint64(n) >> 32)
}

// PairHash hashes a canonical key, whose HashKey is given, without the label called
// name: series that differ in nothing else have the same.
func PairHash(key []byte, hash uint64, name string) uint64 {
	from, to := keySpan(key, name)
	if from == to {
		return hash
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(key[:from]) // never fails
	_, _ = d.Write(key[to:])
	return d.Sum64()
}

// AppendKeyWithout appends a canonical key without the label called name.
func AppendKeyWithout(dst, key []byte, name string) []byte {
	from, to := keySpan(key, name)
	return append(append(dst, key[:from]...), key[to:]...)
}

// keySpan returns where in a canonical key the label called name, which is not empty, lies;
// an empty span if it has none.
func keySpan(key []byte, name string) (from, to int) {
	for from < len(key) {
		// A look at the name is enough to pass a label, which this does for every series of
		// a request: 0a, length, 0a, length of the name, name. Longer lengths are rare.
		b := key[from:]
		var n []byte
		if len(b) >= 4 && b[1] < 0x80 && b[3] < 0x80 && len(b) >= 4+int(b[3]) && len(b) >= 2+int(b[1]) {
			n, to = b[4:4+b[3]], from+2+int(b[1])
		} else {
			long, _, rest, ok := NextKeyLabel(b)
			if !ok {
				break
			}
			n, to = long, len(key)-len(rest)
		}
		if len(n) > 0 && n[0] > name[0] {
			break // what is usual
		}
		if string(n) >= name {
			if string(n) == name {
				return from, to
			}
			break
		}
		from = to
	}
	return 0, 0
}

// AppendKeyLabel appends one label to a key under construction. The caller
// appends labels in order of name.
func AppendKeyLabel(dst []byte, name, value string) []byte {
	inner := 1 + uvarintLen(len(name)) + len(name) + 1 + uvarintLen(len(value)) + len(value)
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(inner))
	dst = append(dst, 0x0a)
	dst = binary.AppendUvarint(dst, uint64(len(name)))
	dst = append(dst, name...)
	dst = append(dst, 0x12)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// AppendKey appends the canonical key of ls to dst.
func AppendKey(dst []byte, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) {
		if l.Value != "" {
			dst = AppendKeyLabel(dst, l.Name, l.Value)
		}
	})
	return dst
}

// NextKeyLabel splits the first label off a key. The slices alias key. It
// accepts only the canonical field order and lengths; ok is false otherwise.
func NextKeyLabel(key []byte) (name, value, rest []byte, ok bool) {
	body, rest, ok := keyField(key, 0x0a)
	if !ok {
		return nil, nil, nil, false
	}
	name, body, ok = keyField(body, 0x0a)
	if !ok {
		return nil, nil, nil, false
	}
	value, body, ok = keyField(body, 0x12)
	return name, value, rest, ok && len(body) == 0
}

func keyField(b []byte, tag byte) (field, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	n, w := uint64(b[1]), 1
	if n >= 0x80 {
		if n, w = binary.Uvarint(b[1:]); w <= 0 || uvarintLen(int(n)) != w {
			return nil, nil, false
		}
	}
	if n > uint64(len(b)-1-w) {
		return nil, nil, false
	}
	return b[1+w : 1+w+int(n)], b[1+w+int(n):], true
}

// CheckKey reports whether key is canonical and why not. The error wraps
// ErrBadLabels.
func CheckKey(key []byte) error {
	var prev []byte
	for rest := key; len(rest) > 0; {
		name, value, next, ok := NextKeyLabel(rest)
		switch {
		case !ok:
			return fmt.Errorf("%w: malformed label bytes", ErrBadLabels)
		case len(name) == 0:
			return fmt.Errorf("%w: empty label name", ErrBadLabels)
		case len(value) == 0:
			return fmt.Errorf("%w: empty value of label %q", ErrBadLabels, name)
		case !utf8.Valid(name) || !utf8.Valid(value):
			return fmt.Errorf("%w: label %q is not valid UTF-8", ErrBadLabels, name)
		case prev != nil && string(prev) >= string(name):
			return fmt.Errorf("%w: label %q is repeated or out of order", ErrBadLabels, name)
		}
		prev, rest = name, next
	}
	if prev == nil {
		return fmt.Errorf("%w: a series needs at least one label", ErrBadLabels)
	}
	return nil
}

// CanonicalKey appends to dst the canonical form of the labels in raw, which may
// be unsorted, carry empty values (these are dropped, as Prometheus does) or
// use protobuf freedoms that CheckKey refuses. It fails with ErrBadLabels on
// malformed bytes, an empty or repeated name, no label, or invalid UTF-8.
func CanonicalKey(dst, raw []byte) ([]byte, error) {
	type pair struct{ name, value string }
	var pairs []pair
	for rest := raw; len(rest) > 0; {
		body, next, ok := looseField(rest, 0x0a)
		if !ok {
			return nil, fmt.Errorf("%w: malformed label bytes", ErrBadLabels)
		}
		var p pair
		for len(body) > 0 {
			tag := body[0]
			f, b, ok := looseField(body, tag)
			if !ok || (tag != 0x0a && tag != 0x12) {
				return nil, fmt.Errorf("%w: malformed label bytes", ErrBadLabels)
			}
			if tag == 0x0a {
				p.name = string(f)
			} else {
				p.value = string(f)
			}
			body = b
		}
		if p.value != "" || p.name == "" {
			pairs = append(pairs, p)
		}
		rest = next
	}
	sort.SliceStable(pairs, func(i, j int) bool { return pairs[i].name < pairs[j].name })
	start := len(dst)
	for _, p := range pairs {
		dst = AppendKeyLabel(dst, p.name, p.value)
	}
	return dst, CheckKey(dst[start:])
}

func looseField(b []byte, tag byte) (field, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != tag {
		return nil, nil, false
	}
	n, w := binary.Uvarint(b[1:])
	if w <= 0 || n > uint64(len(b)-1-w) {
		return nil, nil, false
	}
	return b[1+w : 1+w+int(n)], b[1+w+int(n):], true
}

// KeyLabels decodes a canonical key into freshly allocated labels.
func KeyLabels(key []byte) labels.Labels {
	b := labels.NewScratchBuilder(8)
	for rest := key; len(rest) > 0; {
		name, value, next, ok := NextKeyLabel(rest)
		if !ok {
			break
		}
		b.Add(string(name), string(value))
		rest = next
	}
	return b.Labels()
}

// KeyValue returns the value of the label called name, aliasing key; nil if the
// key has no such label.
func KeyValue(key []byte, name string) []byte {
	for rest := key; len(rest) > 0; {
		n, v, next, ok := NextKeyLabel(rest)
		if !ok {
			return nil
		}
		if string(n) == name {
			return v
		}
		rest = next
	}
	return nil
}

func uvarintLen(n int) int {
	w := 1
	for v := uint64(n); v >= 0x80; v >>= 7 {
		w++
	}
	return w
}
