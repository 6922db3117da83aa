package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/strandline-db/strandline/wal/vfs"
)

// maxCopy is how many bytes of live entries a lagging stream may have for them to be
// copied forward, so that it pins no old segment.
const maxCopy = 1 << 20

// dropSegments removes the segments before the oldest live entry. A stream whose few
// live entries are all that holds an old segment is first written anew at the end.
func (l *Log) dropSegments() error {
	l.write <- struct{}{}
	defer l.unlock()
	l.mu.Lock()
	failed, closed := l.mu.failed, l.mu.closed
	l.mu.Unlock()
	if failed != nil || closed {
		return failed
	}
	defer l.writing.Store(0)
	if err := l.copyForward(); err != nil {
		return l.failLocked(err)
	}
	l.stMu.RLock()
	keep, any := l.st.oldest()
	l.stMu.RUnlock()
	if !any || keep > l.seq {
		keep = l.seq
	}
	if keep == l.oldest {
		return nil
	}
	for l.oldest < keep {
		l.beginWriting() // anew for each: many are no hung disk
		l.opts.Failpoint("wal-drop-segment")
		if err := l.fs.Remove(path.Join(l.dir, segmentName(l.oldest))); err != nil {
			return l.failLocked(err)
		}
		// Synced one by one: a crash that kept only a later removal would leave a gap.
		if err := l.fs.SyncDir(l.dir); err != nil {
			return l.failLocked(err)
		}
		l.oldest++
		l.countSegments()
	}
	return nil
}

func (l *Log) failLocked(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.failed = err
	return err
}

// copyForward rewrites the streams that lag: all their live entries, behind a reset,
// in one batch. It runs only when at least half of the segments would go by it.
func (l *Log) copyForward() error {
	if l.seq-l.oldest < 4 {
		return nil
	}
	middle := l.oldest + (l.seq-l.oldest)/2
	l.stMu.RLock()
	var lagging []StreamID
	for _, id := range l.st.ids() {
		if s := l.st.streams[id]; len(s.at) > 0 && s.at[0].seq < middle {
			lagging = append(lagging, id)
		}
	}
	l.stMu.RUnlock()
	for _, id := range lagging {
		l.beginWriting()
		if err := l.copyStream(id); err != nil {
			return err
		}
	}
	return nil
}

// copyStream copies one stream forward, unless it holds too much or has entries in
// the batch that is gathering: then it does not lag.
func (l *Log) copyStream(id StreamID) error {
	l.stMu.RLock()
	s := *l.st.streams[id]
	l.stMu.RUnlock()
	buf := make([]byte, batchHeader)
	buf = appendControl(buf, kindReset, id, s.base)
	for i := s.base + 1; i <= s.last; i++ {
		e, err := l.get(&s, id, i)
		if err != nil {
			return err
		}
		buf = appendEntry(buf, &e)
		if len(buf) > maxCopy {
			return nil
		}
	}
	if l.off+int64(len(buf)) > l.opts.SegmentSize {
		if err := l.nextSegment(); err != nil {
			return err
		}
	}
	return l.put(buf)
}

// Get returns the live entry at index, its Data freshly allocated; ErrNotFound if
// there is none. It waits for no writer. It reads the batch that holds the entry: for
// sequential reading use Replay.
func (l *Log) Get(s StreamID, index uint64) (Entry, error) {
	for {
		l.stMu.RLock()
		x := l.st.streams[s]
		var c stream
		if x != nil {
			c = *x
		}
		l.stMu.RUnlock()
		e, err := l.get(&c, s, index)
		if !errors.Is(err, fs.ErrNotExist) {
			return e, err
		}
		// The segment may have been dropped meanwhile, its entries truncated or copied.
		l.stMu.RLock()
		was, _ := c.locate(index)
		is, live := l.st.streams[s].locate(index)
		l.stMu.RUnlock()
		if live && is == was {
			return e, &CorruptionError{Path: path.Join(l.dir, segmentName(is.seq)), Err: err}
		}
	}
}

func (l *Log) get(s *stream, id StreamID, index uint64) (out Entry, err error) {
	p, ok := s.locate(index)
	if !ok {
		return out, fmt.Errorf("%w: stream %d has %d to %d, not %d", ErrNotFound, id, s.base+1, s.last, index)
	}
	r, err := openSegment(l.fs, l.dir, p.seq, nil)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, r.f.Close()) }()
	r.off = int64(p.off)
	body, _, off, err := r.next()
	if err != nil {
		return out, &CorruptionError{Path: r.path, Offset: off, Err: err}
	}
	found := false
	err = eachRecord(body, func(rec *record) error {
		if rec.kind == kindEntry && rec.entry.Stream == id && rec.entry.Index == index {
			out, found = rec.entry, true
			out.Data = slices.Clone(out.Data)
		}
		return nil
	})
	if err == nil && !found {
		err = &CorruptionError{Path: r.path, Offset: off, Err: errRecord}
	}
	return out, err
}

// Replay calls fn with every live entry from from(stream) on, each stream in order
// of index, in one pass over the log. Memory stays at one batch. Nothing may be
// appended meanwhile.
func (l *Log) Replay(from func(StreamID) uint64, fn func(*Entry) error) error {
	l.write <- struct{}{}
	defer l.unlock()
	var buf []byte
	for seq := l.oldest; seq <= l.seq; seq++ {
		var err error
		if buf, err = l.replaySegment(seq, buf, from, fn); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) replaySegment(seq uint64, buf []byte, from func(StreamID) uint64, fn func(*Entry) error) (_ []byte, err error) {
	r, err := openSegment(l.fs, l.dir, seq, buf)
	if err != nil {
		return buf, err
	}
	defer func() { err = errors.Join(err, r.f.Close()) }()
	for {
		body, _, off, err := r.next()
		if errors.Is(err, errNoBatch) && (seq < l.seq || off == l.off) {
			return r.buf, nil
		}
		if err != nil {
			return r.buf, &CorruptionError{Path: r.path, Offset: off, Err: err}
		}
		if err := eachRecord(body, func(rec *record) error {
			e := &rec.entry
			if rec.kind != kindEntry || e.Index < from(e.Stream) {
				return nil
			}
			// A record is live if the state says that its index lies in this batch.
			p, ok := l.st.streams[e.Stream].locate(e.Index)
			if !ok || p.seq != seq || int64(p.off) != off {
				return nil
			}
			return fn(e)
		}); err != nil {
			return r.buf, err
		}
	}
}

// Dump writes what is in a closed log, a line a batch; with verbose also a line a record.
func Dump(fsys vfs.FS, dir string, w io.Writer, verbose bool) error {
	seqs, err := listSegments(fsys, dir)
	if err != nil {
		return err
	}
	for _, seq := range seqs {
		if err := dumpSegment(fsys, dir, seq, w, verbose); err != nil {
			return err
		}
	}
	return nil
}

func dumpSegment(fsys vfs.FS, dir string, seq uint64, w io.Writer, verbose bool) (err error) {
	r, err := openSegment(fsys, dir, seq, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.f.Close()) }()
	if _, err := fmt.Fprintf(w, "segment %016x, %d bytes\n", seq, r.size); err != nil {
		return err
	}
	for {
		body, number, off, err := r.next()
		if errors.Is(err, errNoBatch) {
			_, err = fmt.Fprintf(w, "  end at %d\n", off)
			return err
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "  batch %d at %d, %d bytes\n", number, off, len(body)); err != nil {
			return err
		}
		if !verbose {
			continue
		}
		names := [...]string{kindEntry: "entry", kindFront: "front", kindBack: "back", kindReset: "reset", kindValue: "value"}
		if err := eachRecord(body, func(rec *record) error {
			_, err := fmt.Fprintf(w, "    %-5s stream %d index %d term %d type %d %q %d bytes\n", names[rec.kind],
				rec.entry.Stream, rec.entry.Index, rec.entry.Term, rec.entry.Type, rec.key, len(rec.entry.Data))
			return err
		}); err != nil {
			return err
		}
	}
}
