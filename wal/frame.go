package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// StreamID names one stream of the log.
type StreamID uint32

// Entry is one record of a stream. Indexes of a stream are contiguous.
type Entry struct {
	Stream      StreamID
	Index, Term uint64
	Type        uint8
	Data        []byte
}

const (
	segmentMagic  = "SLWL"
	formatVersion = 1
	segmentHeader = 512 // padded to a sector, so that no batch shares it
	batchMagic    = 0x48435442
	batchHeader   = 32
	maxBatch      = 256 << 20
)

// Kinds of records in a batch.
const (
	kindEntry = 1 // an entry
	kindFront = 2 // entries up to the index are no longer needed
	kindBack  = 3 // entries from the index on are cut
	kindReset = 4 // the stream is empty and begins after the index
	kindValue = 5 // a small value under a key
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one decoded record; its slices alias the batch.
type record struct {
	kind  byte
	entry Entry  // Stream and Index of every kind but value, which has no index
	key   []byte // of a value; its bytes are entry.Data
}

func appendSegmentHeader(seq uint64) []byte {
	b := make([]byte, segmentHeader)
	copy(b, segmentMagic)
	binary.LittleEndian.PutUint32(b[4:], formatVersion)
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	return b
}

func checkSegmentHeader(b []byte, seq uint64) error {
	switch {
	case len(b) < segmentHeader || string(b[:4]) != segmentMagic:
		return errMagic
	case binary.LittleEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli):
		return errChecksum
	case binary.LittleEndian.Uint32(b[4:]) != formatVersion:
		return fmt.Errorf("%w %d", errVersion, binary.LittleEndian.Uint32(b[4:]))
	case binary.LittleEndian.Uint64(b[8:]) != seq:
		return errPlace
	}
	for _, c := range b[20:segmentHeader] {
		if c != 0 {
			return errChecksum
		}
	}
	return nil
}

// sealBatch fills in the header of b, whose first batchHeader bytes are reserved.
func sealBatch(b []byte, number, seq uint64, off int64) {
	binary.LittleEndian.PutUint32(b, batchMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-batchHeader))
	binary.LittleEndian.PutUint64(b[8:], number)
	binary.LittleEndian.PutUint64(b[16:], seq)
	binary.LittleEndian.PutUint32(b[24:], uint32(off))
	binary.LittleEndian.PutUint32(b[28:], batchCRC(b))
}

func batchCRC(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:28], castagnoli), castagnoli, b[batchHeader:])
}

// checkBatchHeader returns the length of the whole batch and its number.
func checkBatchHeader(b []byte, seq uint64, off int64) (size int64, number uint64, err error) {
	if binary.LittleEndian.Uint32(b) != batchMagic {
		return 0, 0, errMagic
	}
	if binary.LittleEndian.Uint64(b[16:]) != seq || binary.LittleEndian.Uint32(b[24:]) != uint32(off) {
		return 0, 0, errPlace
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n > maxBatch {
		return 0, 0, ErrTooLarge
	}
	return n + batchHeader, binary.LittleEndian.Uint64(b[8:]), nil
}

func appendEntry(dst []byte, e *Entry) []byte {
	dst = append(dst, kindEntry)
	dst = binary.AppendUvarint(dst, uint64(e.Stream))
	dst = binary.AppendUvarint(dst, e.Index)
	dst = binary.AppendUvarint(dst, e.Term)
	dst = append(dst, e.Type)
	dst = binary.AppendUvarint(dst, uint64(len(e.Data)))
	return append(dst, e.Data...)
}

func appendControl(dst []byte, kind byte, s StreamID, index uint64) []byte {
	dst = binary.AppendUvarint(append(dst, kind), uint64(s))
	return binary.AppendUvarint(dst, index)
}

func appendValue(dst []byte, s StreamID, key string, val []byte) []byte {
	dst = binary.AppendUvarint(append(dst, kindValue), uint64(s))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = binary.AppendUvarint(dst, uint64(len(val)))
	return append(dst, val...)
}

// eachRecord decodes the body of a batch.
func eachRecord(body []byte, fn func(*record) error) error {
	var rec record
	for len(body) > 0 {
		rest, err := rec.decode(body)
		if err != nil {
			return err
		}
		if err := fn(&rec); err != nil {
			return err
		}
		body = rest
	}
	return nil
}

func (r *record) decode(b []byte) (rest []byte, err error) {
	*r = record{kind: b[0]}
	d := decoder{b: b[1:]}
	stream := d.uvarint()
	if stream > 1<<32-1 {
		return nil, errRecord
	}
	r.entry.Stream = StreamID(stream)
	switch r.kind {
	case kindEntry:
		r.entry.Index, r.entry.Term = d.uvarint(), d.uvarint()
		if t := d.take(1); len(t) == 1 {
			r.entry.Type = t[0]
		}
		r.entry.Data = d.take(d.uvarint())
	case kindFront, kindBack, kindReset:
		r.entry.Index = d.uvarint()
	case kindValue:
		r.key = d.take(d.uvarint())
		r.entry.Data = d.take(d.uvarint())
	default:
		return nil, fmt.Errorf("%w: kind %d", errRecord, r.kind)
	}
	if d.bad {
		return nil, errRecord
	}
	return d.b, nil
}

type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}
