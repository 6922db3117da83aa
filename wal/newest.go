package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"

	"github.com/strandline-db/strandline/wal/vfs"
)

// newestName is a file beside the segments that names the newest one: were that gone, the log
// would end at the one before as if nothing had been acknowledged behind it. It is written
// before a segment gets its first batch. A log of an earlier version has none.
const newestName = "NEWEST"

func appendNewest(dst []byte, seq uint64) []byte {
	at := len(dst)
	dst = fmt.Appendf(dst, "%016x ", seq)
	return fmt.Appendf(dst, "%08x\n", crc32.Checksum(dst[at:], castagnoli))
}

// newest returns the number of the segment that newestName names; 0 if there is no such file.
// One that is damaged names none: the segments say more than it does.
func (l *Log) newest() (seq uint64, err error) {
	name := path.Join(l.dir, newestName)
	b, err := vfs.ReadFile(l.fs, name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(b), "%x", &seq); err != nil || string(appendNewest(nil, seq)) != string(b) {
		l.opts.Logger.Warn("log: the file that names the newest segment is damaged; it is written anew", "path", name)
		return 0, nil
	}
	return seq, nil
}

// checkNewest fails if the newest segment is not among those that are there.
func (l *Log) checkNewest(seqs []uint64) error {
	seq, err := l.newest()
	if err != nil {
		return err
	}
	if len(seqs) == 0 && seq > 0 || len(seqs) > 0 && seqs[len(seqs)-1] < seq {
		return &CorruptionError{Path: path.Join(l.dir, segmentName(seq)),
			Err: errors.New("the segment is missing: it was the newest; log files are missing or were cut")}
	}
	return nil
}

// noteNewest makes newestName name a segment.
func (l *Log) noteNewest(seq uint64) error {
	if was, err := l.newest(); err != nil || was == seq {
		return err
	}
	return vfs.WriteFile(l.fs, path.Join(l.dir, newestName), appendNewest(nil, seq))
}
