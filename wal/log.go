package wal

import (
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/strandline-db/strandline/wal/vfs"
)

// Log is an open log.
type Log struct {
	opts Options
	fs   vfs.FS
	dir  string
	lock io.Closer

	// The batch that gathers while another is being written.
	mu struct {
		sync.Mutex
		next   *batch
		last   map[StreamID]uint64 // as it will be once next is durable
		with   company
		failed error
		closed bool
	}
	// state of the streams, as of the last durable batch.
	stMu sync.RWMutex
	st   *state

	// write holds a token of the one caller that writes; it guards what follows. It is a
	// channel and no mutex: a test on virtual time must see that who waits for a disk waits.
	write   chan struct{}
	pacer   pacer
	f       vfs.File
	seq     uint64
	off     int64
	number  uint64 // of the last batch
	oldest  uint64 // segment
	spare   []byte
	scanBuf []byte
	offline bool // being verified, not opened
	healing bool // opened once more, after putAside

	opened  time.Time
	writing atomic.Int64 // when what is asked of the disk now was begun, in nanoseconds since opened; 0: nothing is

	statsMu sync.Mutex
	stats   Stats
}

// batch is the records of callers that wait for the same fsync.
type batch struct {
	buf  []byte        // with room for the header
	done chan struct{} // closed when err says what became of it
	err  error
}

// Stats are figures of a log since it was opened.
type Stats struct {
	Segments  int
	Batches   int64
	Bytes     int64 // written
	Fsyncs    int64
	TornTails int64 // cut on start-up: 0 or 1
	Damaged   int64 // times that the log was found damaged on start-up, or to lack files: 0 or 1
}

// Open opens the log in dir, which it makes if there is none, reads it through and
// cuts a torn tail. All or nothing; one opener at a time.
func Open(dir string, o *Options) (_ *Log, err error) {
	l := &Log{dir: dir, st: newState(), write: make(chan struct{}, 1), opened: time.Now()}
	if o != nil {
		l.opts = *o
	}
	l.opts.EnsureDefaults()
	if err := l.opts.Validate(); err != nil {
		return nil, err
	}
	l.fs = l.opts.FS
	if err := l.fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := l.fs.SyncDir(path.Dir(dir)); err != nil {
		return nil, err
	}
	if l.lock, err = l.fs.Lock(path.Join(dir, "LOCK")); err != nil {
		return nil, err
	}
	if err := l.start(); err != nil {
		if l.f != nil {
			err = errors.Join(err, l.f.Close())
		}
		return nil, errors.Join(err, l.lock.Close())
	}
	l.scanBuf = nil
	l.mu.next = l.newBatch()
	l.mu.with.longest = l.opts.Pace
	l.mu.last = map[StreamID]uint64{}
	for id, s := range l.st.streams {
		l.mu.last[id] = s.last
	}
	return l, nil
}

// start reads the log. What is seen in the folder is made durable first: of a process that
// was killed between a change of names and its sync it is not.
func (l *Log) start() error {
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	return l.recoverAround()
}

func (l *Log) newBatch() *batch {
	return &batch{buf: make([]byte, batchHeader, 64<<10), done: make(chan struct{})}
}

// Append makes entries durable. It shares its write and its fsync with callers that
// come at the same time. Each stream's indexes must follow its last without a gap.
func (l *Log) Append(entries []Entry) error {
	p, err := l.Begin(entries)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Pending is entries that have their place in the log and are not yet durable.
type Pending struct {
	l *Log
	b *batch
}

// Wait returns once the entries are durable, or the log has failed. It is to be called,
// by any goroutine: those who wait do the writing.
func (p Pending) Wait() error { return p.l.await(p.b) }

// Begin is Append's first half: the entries have their place, before all that comes
// later, and reads don't see them until they are durable. Errors are those of what is
// asked; that of writing comes from Wait. A stream's tail is one caller's affair: it waits for
// what it has begun before it cuts or resets, and for these before it appends again. Otherwise
// an index could come twice in one batch, which readers look for by its batch alone.
func (l *Log) Begin(entries []Entry) (Pending, error) {
	b, err := l.join(func(b *batch) error {
		size := 0
		for i := range entries {
			size += len(entries[i].Data) + 40
		}
		if size > maxBatch/2 {
			return ErrTooLarge
		}
		next := map[StreamID]uint64{}
		for i := range entries {
			e := &entries[i]
			last, seen := next[e.Stream]
			if !seen {
				last = l.mu.last[e.Stream]
			}
			if e.Index != last+1 {
				return fmt.Errorf("%w: stream %d ends at %d, index %d was given", ErrOrder, e.Stream, last, e.Index)
			}
			next[e.Stream] = e.Index
		}
		if cap(b.buf)-len(b.buf) < size { // twofold, in few steps
			b.buf = slices.Grow(b.buf, max(size, cap(b.buf)))
		}
		for i := range entries {
			b.buf = appendEntry(b.buf, &entries[i])
		}
		now := time.Now()
		for id, last := range next {
			l.mu.last[id] = last
			l.mu.with.join(id, now)
		}
		return nil
	})
	return Pending{l, b}, err
}

// join adds records to the gathering batch. add runs under l.mu and changes nothing
// when it fails.
func (l *Log) join(add func(*batch) error) (*batch, error) {
	for {
		l.mu.Lock()
		if err := l.usableLocked(); err != nil {
			l.mu.Unlock()
			return nil, err
		}
		b := l.mu.next
		if len(b.buf) < maxBatch/2 {
			err := add(b)
			l.mu.Unlock()
			return b, err
		}
		l.mu.Unlock()
		if err := l.await(b); err != nil { // full: help to write it, then try the next
			return nil, err
		}
	}
}

func (l *Log) usableLocked() error {
	if l.mu.failed != nil {
		return l.mu.failed
	}
	if l.mu.closed {
		return ErrClosed
	}
	return nil
}

// await returns once b is durable. Whoever finds it not yet written writes it,
// together with what others have put into it meanwhile.
func (l *Log) await(b *batch) error {
	select {
	case <-b.done:
		return b.err
	case l.write <- struct{}{}:
		defer l.unlock()
	}
	select {
	case <-b.done:
		return b.err
	default:
	}
	if l.opts.Pace > 0 {
		l.gather(b)
	}
	l.mu.Lock()
	failed := l.mu.failed
	next := l.newBatchFrom(l.spare)
	l.spare = nil
	l.mu.next = next
	l.mu.Unlock()
	if failed == nil {
		failed = l.writeBatch(b)
	}
	l.spare = b.buf
	b.buf = nil
	b.err = failed
	close(b.done)
	return failed
}

func (l *Log) unlock() { <-l.write }

// gather waits until it is time to write b, and lets other callers run, who may be about
// to join it, for as long as they do.
func (l *Log) gather(b *batch) {
	if rest := l.pacer.take(time.Now(), l.opts.Pace); rest > 0 {
		time.Sleep(rest)
	} else {
		l.keepCompany()
	}
	for had := -1; ; {
		l.mu.Lock()
		size := len(b.buf)
		l.mu.Unlock()
		if size == had {
			return
		}
		had = size
		runtime.Gosched()
	}
}

// keepCompany waits for the streams that are sure to come now; see company.
func (l *Log) keepCompany() {
	l.mu.Lock()
	whole, rest := l.mu.with.rest(time.Now())
	l.mu.Unlock()
	if rest <= 0 {
		return
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-whole:
	case <-timer.C:
	}
}

func (l *Log) newBatchFrom(buf []byte) *batch {
	if cap(buf) < batchHeader || cap(buf) > 16<<20 {
		return l.newBatch()
	}
	return &batch{buf: buf[:batchHeader], done: make(chan struct{})}
}

// writeBatch writes b, syncs, and brings the state up to date. After an error the
// log has failed.
func (l *Log) writeBatch(b *batch) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrFailed, err)
			l.mu.Lock()
			l.mu.failed = err
			l.mu.Unlock()
		}
	}()
	if len(b.buf) == batchHeader {
		return nil
	}
	l.beginWriting()
	defer l.writing.Store(0)
	if l.off+int64(len(b.buf)) > l.opts.SegmentSize && l.off > segmentHeader {
		if err := l.nextSegment(); err != nil {
			return err
		}
	}
	return l.put(b.buf)
}

// put writes one batch at the end of the segment, syncs and absorbs it.
func (l *Log) put(buf []byte) error {
	sealBatch(buf, l.number+1, l.seq, l.off)
	l.opts.Failpoint("wal-before-write")
	if _, err := l.f.WriteAt(buf, l.off); err != nil {
		return err
	}
	l.opts.Failpoint("wal-before-sync")
	if err := l.f.Sync(); err != nil {
		return err
	}
	l.opts.Failpoint("wal-after-sync")
	l.stMu.Lock()
	err := eachRecord(buf[batchHeader:], func(r *record) error { return l.st.absorb(r, l.seq, l.off) })
	l.stMu.Unlock()
	l.number++
	l.off += int64(len(buf))
	l.statsMu.Lock()
	defer l.statsMu.Unlock()
	l.stats.Batches++
	l.stats.Fsyncs++
	l.stats.Bytes += int64(len(buf))
	return err
}

// nextSegment closes the full segment and begins the next one.
func (l *Log) nextSegment() error {
	// What is preallocated and unused would look like missing batches to nobody, but
	// would take room on disk until the segment is dropped.
	if err := l.f.Truncate(l.off); err != nil {
		return err
	}
	if err := errors.Join(l.f.Sync(), l.f.Close()); err != nil {
		return err
	}
	l.f = nil
	return l.roll(l.seq + 1)
}

// roll makes segment seq, durable with its header, and opens it with the streams'
// state.
func (l *Log) roll(seq uint64) error {
	l.opts.Failpoint("wal-roll")
	f, err := l.fs.Create(path.Join(l.dir, segmentName(seq)))
	if err != nil {
		return err
	}
	l.f = f
	if err := f.Preallocate(l.opts.SegmentSize); err != nil {
		return err
	}
	if _, err := f.WriteAt(appendSegmentHeader(seq), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	l.seq, l.off = seq, segmentHeader
	if err := l.noteNewest(l.seq); err != nil {
		return err
	}
	if l.oldest == 0 {
		l.oldest = seq
	}
	l.countSegments()
	l.stMu.RLock()
	opening := l.st.opening(make([]byte, batchHeader))
	l.stMu.RUnlock()
	if len(opening) == batchHeader {
		return nil
	}
	return l.put(opening)
}

// control makes a control record durable. at says, of the stream's last index with all that
// gathers before the record, which index it is about and what the last one is then.
func (l *Log) control(kind byte, s StreamID, at func(last uint64) (index, then uint64)) error {
	b, err := l.join(func(b *batch) error {
		index, last := at(l.mu.last[s])
		b.buf = appendControl(b.buf, kind, s, index)
		l.mu.last[s] = last
		return nil
	})
	if err != nil {
		return err
	}
	return l.await(b)
}

// TruncateFront says that entries up to the index, inclusive, are no longer needed.
// Durable on return; segments that hold no live entry go.
func (l *Log) TruncateFront(s StreamID, upto uint64) error {
	l.stMu.RLock()
	x, ok := l.st.streams[s]
	nothing := !ok || upto <= x.base
	if ok {
		upto = min(upto, x.last) // what is not durable yet is needed
	}
	l.stMu.RUnlock()
	if nothing {
		return nil
	}
	if err := l.control(kindFront, s, func(last uint64) (uint64, uint64) { return min(upto, last), last }); err != nil {
		return err
	}
	return l.dropSegments()
}

// TruncateBack cuts the entries from the index on; it may come again with other
// content. Durable on return.
func (l *Log) TruncateBack(s StreamID, from uint64) error {
	if from == 0 {
		return fmt.Errorf("%w: there is no index 0", ErrOrder)
	}
	base := l.Base(s)
	from = max(from, base+1)
	return l.control(kindBack, s, func(last uint64) (uint64, uint64) { return from, max(base, min(last, from-1)) })
}

// Reset drops all entries of a stream and lets it begin after base. Durable on return.
func (l *Log) Reset(s StreamID, base uint64) error {
	if err := l.control(kindReset, s, func(uint64) (uint64, uint64) { return base, base }); err != nil {
		return err
	}
	return l.dropSegments()
}

// Value is a small value under a key, beside a stream.
type Value struct {
	Key string
	Val []byte
}

// SetValue stores a value, durably.
func (l *Log) SetValue(s StreamID, key string, val []byte) error {
	return l.SetValues(s, Value{key, val})
}

// SetValues stores values, durably: after a crash all of them are there or none.
func (l *Log) SetValues(s StreamID, vals ...Value) error {
	b, err := l.join(func(b *batch) error {
		for _, v := range vals {
			b.buf = appendValue(b.buf, s, v.Key, v.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return l.await(b)
}

// Value returns what SetValue stored.
func (l *Log) Value(s StreamID, key string) ([]byte, bool) {
	l.stMu.RLock()
	defer l.stMu.RUnlock()
	if x := l.st.streams[s]; x != nil {
		v, ok := x.values[key]
		return slices.Clone(v), ok
	}
	return nil, false
}

// Base returns the index before the first live entry; 0 for a new stream.
func (l *Log) Base(s StreamID) uint64 {
	l.stMu.RLock()
	defer l.stMu.RUnlock()
	if x := l.st.streams[s]; x != nil {
		return x.base
	}
	return 0
}

// Last returns the index of the last durable entry; Base if there is none.
func (l *Log) Last(s StreamID) uint64 {
	l.stMu.RLock()
	defer l.stMu.RUnlock()
	if x := l.st.streams[s]; x != nil {
		return x.last
	}
	return 0
}

// Streams returns the streams that the log knows, in order.
func (l *Log) Streams() []StreamID {
	l.stMu.RLock()
	defer l.stMu.RUnlock()
	return l.st.ids()
}

// beginWriting measures from when the log was opened: the machine's clock may be set meanwhile, by
// an hour, and that is no disk that hangs.
func (l *Log) beginWriting() { l.writing.Store(int64(max(1, time.Since(l.opened)))) }

// Writing returns for how long the write and fsync under way have lasted, or the removal of
// a segment, which all writers wait for; 0 if there is none. A disk that hangs shows here first.
func (l *Log) Writing() time.Duration {
	began := l.writing.Load()
	if began == 0 {
		return 0
	}
	return max(1, time.Since(l.opened)-time.Duration(began))
}

// Stats returns the log's figures. It waits for no writer.
func (l *Log) Stats() Stats {
	l.statsMu.Lock()
	defer l.statsMu.Unlock()
	return l.stats
}

// countSegments is for whoever has made or removed one.
func (l *Log) countSegments() {
	l.statsMu.Lock()
	defer l.statsMu.Unlock()
	l.stats.Segments = int(l.seq - l.oldest + 1)
}

// Close waits for the batch under way and closes the files. Idempotent.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		return nil
	}
	l.mu.closed = true
	begun := l.mu.next
	l.mu.Unlock()
	errs := []error{l.await(begun)}
	l.write <- struct{}{}
	defer l.unlock()
	if l.f != nil {
		l.mu.Lock()
		failed := l.mu.failed
		l.mu.Unlock()
		if failed == nil { // give back what was preallocated and not used
			errs = append(errs, l.f.Truncate(l.off), l.f.Sync())
		}
		errs = append(errs, l.f.Close())
		l.f = nil
	}
	return errors.Join(append(errs, l.lock.Close())...)
}
