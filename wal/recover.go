package wal

import (
	"errors"
	"fmt"
	"path"

	"github.com/strandline-db/strandline/wal/vfs"
)

// recover reads every batch, sets up the state, cuts a torn tail and opens the last
// segment for writing.
func (l *Log) recover() error {
	seqs, err := listSegments(l.fs, l.dir)
	if err != nil {
		return err
	}
	if seqs, err = l.dropUnborn(seqs); err != nil {
		return err
	}
	if !l.healing {
		if err := l.checkNewest(seqs); err != nil {
			return err
		}
	}
	if len(seqs) == 0 {
		return l.roll(1)
	}
	l.oldest = seqs[0]
	for i, seq := range seqs {
		if err := l.recoverSegment(seq, i == 0, i == len(seqs)-1); err != nil {
			return err
		}
	}
	if l.healing {
		if err := l.heal(); err != nil {
			return err
		}
	} else if err := l.checkWhole(seqs[0]); err != nil {
		return err
	}
	return l.noteNewest(l.seq)
}

// checkWhole fails if live entries lay in a segment before the first.
func (l *Log) checkWhole(first uint64) error {
	if id, found := l.st.missing(); found {
		return &CorruptionError{Path: path.Join(l.dir, segmentName(first-1)),
			Err: fmt.Errorf("the segment is missing: it held live entries of stream %d", id)}
	}
	return nil
}

// dropUnborn removes a last segment whose header never became durable: nothing was
// acknowledged in it, since its header is synced before its first batch.
func (l *Log) dropUnborn(seqs []uint64) ([]uint64, error) {
	if len(seqs) == 0 {
		return seqs, nil
	}
	last := seqs[len(seqs)-1]
	r, err := openSegment(l.fs, l.dir, last, nil)
	if err == nil {
		return seqs, r.f.Close()
	}
	var damage *CorruptionError
	if !errors.As(err, &damage) || errors.Is(err, errVersion) {
		return nil, err
	}
	probe, err := l.headless(last)
	if err != nil {
		return nil, err
	}
	found, err := probe.laterBatch(0)
	if err = errors.Join(err, probe.f.Close()); err != nil {
		return nil, err
	}
	if found {
		return nil, damage
	}
	if l.offline {
		return seqs[:len(seqs)-1], nil
	}
	l.opts.Logger.Warn("log: removing a segment that a crash left without a header", "path", probe.path)
	if err := l.fs.Remove(probe.path); err != nil {
		return nil, err
	}
	return seqs[:len(seqs)-1], l.fs.SyncDir(l.dir)
}

// headless opens a segment without looking at its header.
func (l *Log) headless(seq uint64) (*segmentReader, error) {
	name := path.Join(l.dir, segmentName(seq))
	f, err := l.fs.Open(name)
	if err != nil {
		return nil, err
	}
	r := &segmentReader{f: f, path: name, seq: seq, off: segmentHeader - 1}
	if r.size, err = f.Size(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func (l *Log) recoverSegment(seq uint64, first, last bool) (err error) {
	r, err := openSegment(l.fs, l.dir, seq, l.scanBuf)
	if err != nil {
		return err
	}
	defer func() {
		l.scanBuf = r.buf
		err = errors.Join(err, r.f.Close())
	}()
	begun, newest := false, r.off // where the last whole batch begins
	for {
		body, number, off, err := r.next()
		if errors.Is(err, errNoBatch) {
			break
		}
		if err != nil {
			return err
		}
		if number != l.number+1 && !(first && !begun) {
			return &CorruptionError{Path: r.path, Offset: off, Err: fmt.Errorf("batch %d follows batch %d", number, l.number)}
		}
		l.number, begun, newest = number, true, off
		if err := eachRecord(body, func(rec *record) error { return l.st.absorb(rec, seq, off) }); err != nil {
			return &CorruptionError{Path: r.path, Offset: off, Err: err}
		}
	}
	return l.endSegment(r, newest, last)
}

// endSegment decides what the bytes behind the last whole batch, which begins at newest, are:
// nothing, a torn tail, or damage.
func (l *Log) endSegment(r *segmentReader, newest int64, last bool) error {
	dirty, err := r.dirty()
	if err != nil {
		return err
	}
	if !last {
		// The next segment's first batch number tells whether batches are missing here.
		if dirty {
			return &CorruptionError{Path: r.path, Offset: r.off, Err: errChecksum}
		}
		return nil
	}
	if dirty {
		found, err := r.laterBatch(l.number + 1)
		if err != nil {
			return err
		}
		if found {
			return &CorruptionError{Path: r.path, Offset: r.off, Err: errChecksum}
		}
		if err := l.tornTail(r); err != nil {
			return err
		}
	}
	if l.offline {
		return nil
	}
	return l.reopen(r, newest, dirty)
}

// tornTail counts and reports a tail that is about to be cut, and notes durably if it
// may have been acknowledged.
func (l *Log) tornTail(r *segmentReader) error {
	l.stats.TornTails++
	unfinished, err := r.unfinished()
	if err != nil {
		return err
	}
	if unfinished {
		l.opts.Logger.Warn("log: cutting a torn tail, left by a crash while writing", "path", r.path, "offset", r.off)
		return nil
	}
	l.opts.Logger.Error("log: cutting a damaged batch at the end, which may have been acknowledged", "path", r.path, "offset", r.off)
	if l.offline {
		return nil
	}
	return l.doubtTail(fmt.Sprintf("the last batch of %s, at byte %d, was damaged and has been cut", path.Base(r.path), r.off))
}

// reopen opens the last segment for writing behind what r has read, having zeroed what follows.
// The batch at newest, or the header, may be what a sync failed for in an earlier life: then it
// is in the page cache, clean, and not on the disk, and no sync brings it there unless it is
// written anew. Only one batch is ever in flight, so all before it is durable.
func (l *Log) reopen(r *segmentReader, newest int64, cut bool) (err error) {
	f, err := l.fs.OpenReadWrite(r.path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if cut {
		if err := f.Truncate(r.off); err != nil {
			return err
		}
	}
	for _, part := range [][2]int64{{0, segmentHeader}, {newest, r.off}} {
		b := make([]byte, part[1]-part[0])
		if err := readFull(f, b, part[0]); err != nil {
			return err
		}
		if _, err := f.WriteAt(b, part[0]); err != nil {
			return err
		}
	}
	if size, err := f.Size(); err != nil {
		return err
	} else if size < l.opts.SegmentSize {
		if err := f.Preallocate(l.opts.SegmentSize); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	l.f, l.seq, l.off = f, r.seq, r.off
	l.countSegments()
	return nil
}

// Verify reads every frame of a closed log and reports damage; a torn tail is none.
func Verify(fsys vfs.FS, dir string, report func(segment string, off int64, err error)) error {
	seqs, err := listSegments(fsys, dir)
	if err != nil {
		return err
	}
	l := &Log{fs: fsys, dir: dir, st: newState(), offline: true}
	l.opts.EnsureDefaults()
	if seqs, err = l.dropUnborn(seqs); err != nil {
		return err
	}
	for i, seq := range seqs {
		if err := l.recoverSegment(seq, i == 0, i == len(seqs)-1); err != nil {
			var damage *CorruptionError
			if !errors.As(err, &damage) {
				return err
			}
			report(damage.Path, damage.Offset, damage.Err)
			return nil
		}
	}
	err = l.checkNewest(seqs)
	if err == nil && len(seqs) > 0 {
		err = l.checkWhole(seqs[0])
	}
	var damage *CorruptionError
	if errors.As(err, &damage) {
		report(damage.Path, damage.Offset, damage.Err)
		return nil
	}
	return err
}
