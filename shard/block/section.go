package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/strandline-db/strandline/shard/model"
	"github.com/strandline-db/strandline/wal/vfs"
)

// A section is a flag byte (0: as is, 1: zstd), the bytes, and a CRC32C of both. The
// place and the stored length are kept by whoever points to it.
const (
	magic         = "SLBK"
	version       = 1
	headerSize    = 16
	footerSize    = 28
	sectionRaw    = 0
	sectionZstd   = 1
	sectionFixed  = 5 // flag and checksum
	maxSection    = 1 << 30
	chunkPageSize = 32 << 10
	seriesPerPage = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errMagic    = errors.New("not a block: bad magic")
	errVersion  = errors.New("block version is not known to this binary")
	errChecksum = errors.New("checksum mismatch")
	errFormat   = errors.New("malformed block")
)

// place says where a section lies.
type place struct {
	off int64
	len uint32 // stored, with flag and checksum
}

func appendPlace(dst []byte, p place) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(p.off)), uint64(p.len))
}

// appendSection encodes b as a section; enc nil means as is.
func appendSection(dst, b []byte, enc *zstd.Encoder) []byte {
	start := len(dst)
	if enc != nil {
		dst = append(dst, sectionZstd)
		dst = enc.EncodeAll(b, dst)
	}
	if enc == nil || len(dst)-start-1 >= len(b) {
		dst = append(append(dst[:start], sectionRaw), b...)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// readSection reads, verifies and unpacks the section at p.
func readSection(f vfs.File, path string, p place, dec *zstd.Decoder) ([]byte, error) {
	body, err := readPacked(f, path, p, nil)
	if err != nil {
		return nil, err
	}
	bad := func(err error) error { return &model.CorruptionError{Path: path, Offset: p.off, Err: err} }
	switch body[0] {
	case sectionRaw:
		return body[1:], nil
	case sectionZstd:
		out, err := dec.DecodeAll(body[1:], nil)
		if err != nil {
			return nil, bad(err)
		}
		return out, nil
	}
	return nil, bad(fmt.Errorf("%w: section flag %d", errFormat, body[0]))
}

// readPacked reads and verifies the section at p: its flag and its bytes as stored. It
// uses buf if that is large enough.
func readPacked(f vfs.File, path string, p place, buf []byte) ([]byte, error) {
	bad := func(err error) error { return &model.CorruptionError{Path: path, Offset: p.off, Err: err} }
	if p.len < sectionFixed || p.len > maxSection {
		return nil, bad(errFormat)
	}
	if cap(buf) < int(p.len) {
		buf = make([]byte, p.len)
	}
	b := buf[:p.len]
	if n, err := f.ReadAt(b, p.off); err != nil && !(errors.Is(err, io.EOF) && n == len(b)) {
		if errors.Is(err, io.EOF) {
			return nil, bad(io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[len(body):]) {
		return nil, bad(errChecksum)
	}
	return body, nil
}

// cursor reads varints; the first fault makes it bad and everything after zero.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) varint() int64 {
	u := c.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

// count reads an element count and refuses one that the rest can't hold.
func (c *cursor) count() int {
	n := c.uvarint()
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return 0
	}
	return int(n)
}

func (c *cursor) place() place {
	off, n := c.uvarint(), c.uvarint()
	if off > 1<<62 || n > maxSection {
		c.bad = true
		return place{}
	}
	return place{off: int64(off), len: uint32(n)}
}
