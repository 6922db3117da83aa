package ingest

import (
	"encoding/binary"
	"unsafe"
)

// Protobuf wire types.
const (
	typeVarint  = 0
	typeFixed64 = 1
	typeBytes   = 2
	typeGroup   = 3
	typeEnd     = 4
	typeFixed32 = 5
)

// uvarint reads a varint at b[i]; next is the place after it, or -1.
func uvarint(b []byte, i int) (v uint64, next int) {
	if uint(i) < uint(len(b)) && b[i] < 0x80 {
		return uint64(b[i]), i + 1
	}
	for shift := uint(0); shift < 64 && i < len(b); shift += 7 {
		c := b[i]
		i++
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v, i
		}
	}
	return 0, -1
}

// span reads a length at b[i] and returns where the bytes of that length lie; to
// is -1 if they don't.
func span(b []byte, i int) (from, to int) {
	n, i := uvarint(b, i)
	if i < 0 || n > uint64(len(b)-i) {
		return 0, -1
	}
	return i, i + int(n)
}

// fields walks over the fields of a message. After next reports true, num and typ
// name a field and v or data hold it; data aliases b. When next reports false, bad
// tells whether the message is malformed.
type fields struct {
	b    []byte
	i    int
	num  uint64
	typ  uint64
	v    uint64
	data []byte
	bad  bool
}

func (f *fields) next() bool {
	if f.i >= len(f.b) || f.bad {
		return false
	}
	tag, i := uvarint(f.b, f.i)
	// Numbers are taken as 32 bits, as upstream's decoders do.
	f.num, f.typ = uint64(uint32(tag>>3)), tag&7
	if i < 0 || int32(f.num) <= 0 {
		return f.fail()
	}
	if f.typ == typeGroup {
		f.i = i
		return f.skipGroup()
	}
	return f.value(i)
}

// value reads what a field of type typ holds at b[i].
func (f *fields) value(i int) bool {
	to := -1
	switch f.typ {
	case typeVarint:
		f.v, to = uvarint(f.b, i)
	case typeFixed64:
		if len(f.b)-i >= 8 {
			f.v, to = binary.LittleEndian.Uint64(f.b[i:]), i+8
		}
	case typeFixed32:
		if len(f.b)-i >= 4 {
			f.v, to = uint64(binary.LittleEndian.Uint32(f.b[i:])), i+4
		}
	case typeBytes:
		if i, to = span(f.b, i); to >= 0 {
			f.data = f.b[i:to]
		}
	}
	if to < 0 {
		return f.fail()
	}
	f.i = to
	return true
}

// skipGroup moves behind the end of a group, whose start was read. Only unknown
// fields can be groups; it is reported as a field without a value, and what is in
// it is not looked at.
func (f *fields) skipGroup() bool {
	num := f.num
	for depth := 1; depth > 0; {
		tag, i := uvarint(f.b, f.i)
		if i < 0 {
			return f.fail()
		}
		f.i = i
		switch f.typ = tag & 7; f.typ {
		case typeGroup:
			depth++
		case typeEnd:
			depth--
		default:
			if !f.value(i) {
				return false
			}
		}
	}
	f.num, f.typ = num, typeGroup
	return true
}

func (f *fields) fail() bool {
	f.bad = true
	return false
}

// is reports whether the field has the wanted type; a known field of another type
// makes the message malformed.
func (f *fields) is(typ uint64) bool {
	if f.typ != typ {
		f.bad = true
	}
	return f.typ == typ
}

func zigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

// view is b as a string without a copy. It is used only for scratch that is
// dropped before the memory behind b is used again.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
