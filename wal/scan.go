package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/strandline-db/strandline/wal/vfs"
)

const segmentSuffix = ".wal"

func segmentName(seq uint64) string { return fmt.Sprintf("%016x%s", seq, segmentSuffix) }

// listSegments returns the numbers of the segments in dir, ascending and without a gap.
func listSegments(fsys vfs.FS, dir string) ([]uint64, error) {
	names, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	var seqs []uint64
	for _, n := range names {
		hex, ok := strings.CutSuffix(n, segmentSuffix)
		if !ok {
			continue
		}
		seq, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || segmentName(seq) != n {
			return nil, fmt.Errorf("%s: not a log segment's name; move it away", path.Join(dir, n))
		}
		if k := len(seqs); k > 0 && seqs[k-1]+1 != seq {
			return nil, &CorruptionError{Path: path.Join(dir, segmentName(seqs[k-1]+1)), Err: errors.New("the segment is missing")}
		}
		seqs = append(seqs, seq)
	}
	return seqs, nil
}

// segmentReader reads the batches of one segment in order.
type segmentReader struct {
	f    vfs.File
	path string
	seq  uint64
	off  int64
	size int64
	buf  []byte
}

func openSegment(fsys vfs.FS, dir string, seq uint64, buf []byte) (_ *segmentReader, err error) {
	name := path.Join(dir, segmentName(seq))
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	r := &segmentReader{f: f, path: name, seq: seq, off: segmentHeader, buf: buf}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if r.size, err = f.Size(); err != nil {
		return nil, err
	}
	head := make([]byte, segmentHeader)
	if err := readFull(f, head, 0); err != nil {
		return nil, err
	}
	if err := checkSegmentHeader(head, seq); err != nil {
		return nil, &CorruptionError{Path: name, Err: err}
	}
	return r, nil
}

// readFull reads len(b) bytes at off; what lies beyond the end of the file is zero.
func readFull(f vfs.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	clear(b[n:])
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// errNoBatch: no whole batch lies at the reader's position.
var errNoBatch = errors.New("no batch here")

// next returns the body and the number of the batch at r.off and moves past it. The
// body is valid until the next call. An error that is not errNoBatch is one of reading.
func (r *segmentReader) next() (body []byte, number uint64, off int64, err error) {
	var head [batchHeader]byte
	if r.off+batchHeader > r.size {
		return nil, 0, r.off, errNoBatch
	}
	if err := readFull(r.f, head[:], r.off); err != nil {
		return nil, 0, r.off, err
	}
	size, number, err := checkBatchHeader(head[:], r.seq, r.off)
	if err != nil || r.off+size > r.size {
		return nil, 0, r.off, errNoBatch
	}
	if int64(cap(r.buf)) < size {
		r.buf = make([]byte, size+size/4)
	}
	b := r.buf[:size]
	if err := readFull(r.f, b, r.off); err != nil {
		return nil, 0, r.off, err
	}
	if binary.LittleEndian.Uint32(b[28:]) != batchCRC(b) {
		return nil, 0, r.off, errNoBatch
	}
	off = r.off
	r.off += size
	return b[batchHeader:], number, off, nil
}

// laterBatch looks behind r.off for a whole batch with a number from atLeast on. One
// that is there proves that what lies at r.off was once whole too.
func (r *segmentReader) laterBatch(atLeast uint64) (found bool, err error) {
	const window = 1 << 20
	buf := make([]byte, window+batchHeader)
	for at := r.off + 1; at < r.size; at += window {
		if err := readFull(r.f, buf, at); err != nil {
			return false, err
		}
		for i := range window {
			if binary.LittleEndian.Uint32(buf[i:]) != batchMagic {
				continue
			}
			probe := *r
			probe.off, probe.buf = at+int64(i), nil
			_, number, _, err := probe.next()
			if err != nil && !errors.Is(err, errNoBatch) {
				return false, err
			}
			if err == nil && number >= atLeast {
				return true, nil
			}
		}
	}
	return false, nil
}

// dirty reports whether anything but zeros lies from r.off on.
func (r *segmentReader) dirty() (bool, error) {
	buf := make([]byte, 1<<20)
	for at := r.off; at < r.size; at += int64(len(buf)) {
		if err := readFull(r.f, buf, at); err != nil {
			return false, err
		}
		for _, c := range buf {
			if c != 0 {
				return true, nil
			}
		}
	}
	return false, nil
}
