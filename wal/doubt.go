package wal

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"path"
	"strings"

	"github.com/strandline-db/strandline/wal/vfs"
)

// doubtName is a file beside the segments: acknowledged records may be missing.
const doubtName = "DOUBT"

const sector = 512 // what a disk writes whole or not at all

// Doubt says why acknowledged records may be missing; Why is empty if nothing says so.
type Doubt struct {
	Why  string
	Tail bool // no more than the last batch is, which may have been under way
}

// tailOnly is the second line of DOUBT if Doubt.Tail.
const tailOnly = "\nno more than this"

// Doubt returns why acknowledged records may be missing. It lasts until ClearDoubt, over
// restarts. A single node can only tell of it; a replica must not vote before it knows
// what it lacks.
func (l *Log) Doubt() (Doubt, error) {
	b, err := vfs.ReadFile(l.fs, path.Join(l.dir, doubtName))
	if errors.Is(err, fs.ErrNotExist) {
		return Doubt{}, nil
	}
	why, tail := strings.CutSuffix(string(b), tailOnly)
	return Doubt{why, tail}, err
}

// SetDoubt notes durably that acknowledged records may be missing: the owner has found that
// the log lacks what it had. It counts as damage.
func (l *Log) SetDoubt(why string) error {
	l.countDamage()
	return l.setDoubt(why)
}

// countDamage counts what is found wrong when the log is opened, once.
func (l *Log) countDamage() {
	l.statsMu.Lock()
	defer l.statsMu.Unlock()
	l.stats.Damaged = 1
}

func (l *Log) setDoubt(why string) error {
	return vfs.WriteFile(l.fs, path.Join(l.dir, doubtName), []byte(why))
}

// doubtTail notes durably that the last batch may be missing, if nothing more is: in a doubt
// that lasts, another one has gone before it.
func (l *Log) doubtTail(why string) error {
	switch was, err := l.Doubt(); {
	case err != nil:
		return err
	case was.Tail && was.Why != why: // the same, if a crash came before the cut
		return l.setDoubt(was.Why + "; " + why)
	case was.Why != "":
		return nil
	}
	return l.setDoubt(why + tailOnly)
}

// ClearDoubt ends the doubt. Durable on return.
func (l *Log) ClearDoubt() error {
	switch err := l.fs.Remove(path.Join(l.dir, doubtName)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return l.fs.SyncDir(l.dir)
}

// unfinished tells whether the torn tail at r.off can only be a batch whose write had
// not ended, and which was therefore never acknowledged: a sector of it is all zeros,
// as preallocated, so it never reached the disk. What is there in full and wrong has
// been damaged later, and may have been acknowledged. In doubt it is false.
func (r *segmentReader) unfinished() (bool, error) {
	written, err := r.written()
	if err != nil {
		return false, err
	}
	var head [batchHeader]byte
	if err := readFull(r.f, head[:], r.off); err != nil {
		return false, err
	}
	end := written
	switch size, _, err := checkBatchHeader(head[:], r.seq, r.off); {
	case written < r.off+batchHeader:
		end = min(r.off+batchHeader, r.size) // the header itself is not all there
	case err != nil: // a header that is there, and wrong
	case r.off+size > r.size:
		return false, nil // the file has been cut: it is preallocated before anything is written
	case r.off+size < written:
		return false, nil // nothing follows a batch under way
	default:
		if whole, err := r.wholeButLength(head[:]); whole || err != nil {
			return false, err
		}
		end = r.off + size
	}
	return r.lacksSector(end)
}

// written returns the offset behind the last byte from r.off on that is not zero.
func (r *segmentReader) written() (int64, error) {
	buf, last := make([]byte, 1<<20), r.off
	for at := r.off; at < r.size; at += int64(len(buf)) {
		if err := readFull(r.f, buf, at); err != nil {
			return 0, err
		}
		for i, c := range buf {
			if c != 0 {
				last = at + int64(i) + 1
			}
		}
	}
	return last, nil
}

// lacksSector tells whether a sector, or the part of one, between r.off and end is zeros.
func (r *segmentReader) lacksSector(end int64) (bool, error) {
	var buf [sector]byte
	for at := r.off; at < end; {
		next := min((at/sector+1)*sector, end)
		b := buf[:next-at]
		if err := readFull(r.f, b, at); err != nil {
			return false, err
		}
		if allZero(b) {
			return true, nil
		}
		at = next
	}
	return false, nil
}

// wholeButLength tells whether all is there but for a flip in the length: a length
// that is too large by it would reach into zeros.
func (r *segmentReader) wholeButLength(head []byte) (bool, error) {
	claimed := binary.LittleEndian.Uint32(head[4:])
	for bit := range 32 {
		n := claimed ^ 1<<bit
		if n > claimed || r.off+batchHeader+int64(n) > r.size {
			continue
		}
		b := make([]byte, batchHeader+int(n))
		if err := readFull(r.f, b, r.off); err != nil {
			return false, err
		}
		binary.LittleEndian.PutUint32(b[4:], n)
		if batchCRC(b) == binary.LittleEndian.Uint32(b[28:]) {
			return true, nil
		}
	}
	return false, nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
