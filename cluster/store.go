package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal"
)

// logStore is a group's Raft log and its stable values: one stream of the node's
// log. An error of writing has ended the log for good; fail stops the node.
type logStore struct {
	log  *wal.Log
	id   wal.StreamID
	fail func(error)
	tap  tap // nil outside tests
	// early tells whether these entries, which Raft has just made, may go out to the
	// followers before they are durable here; nil: none may. See group.early.
	early func([]*raft.Log) bool
	// mark is the machine's: the entry of the last flush, which GetLog, goOn and DeleteRange need.
	mark func() (engine.Mark, bool)
	late lateWrites
	// configurations of the log's end; reading, while Raft starts and reads all that is above
	// the last flush: then GetLog tells of them.
	configurations loggedConfigurations
	reading        atomic.Bool
}

var (
	_ raft.LogStore          = (*logStore)(nil)
	_ raft.MonotonicLogStore = (*logStore)(nil)
	_ raft.StableStore       = (*logStore)(nil)
)

// typeGone is that of an entry of which no more than its index and term is known. It must not
// go to a follower; see wellFormed.
const typeGone raft.LogType = 0xff

// errNotFound has the text by which Raft knows a missing key.
var errNotFound = errors.New("not found")

// IsMonotonic implements raft.MonotonicLogStore: there are no gaps in a stream.
func (*logStore) IsMonotonic() bool { return true }

// FirstIndex implements raft.LogStore.
func (s *logStore) FirstIndex() (uint64, error) {
	base, last := s.log.Base(s.id), s.log.Last(s.id)
	if base >= last {
		return 0, nil
	}
	return base + 1, nil
}

// LastIndex implements raft.LogStore.
func (s *logStore) LastIndex() (uint64, error) {
	base, last := s.log.Base(s.id), s.log.Last(s.id)
	if base >= last {
		return 0, nil
	}
	return last, nil
}

// GetLog implements raft.LogStore. The entry of the last flush is known by its term when it
// is gone: a leader that overrules all that is above it has no other to agree on, nor a
// snapshot that covers lets through. What it held is not known, so it is of typeGone: Raft
// asks for the entry itself if the log is cut just when it has read the one before.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	if err := s.late.wait(index); err != nil {
		return err
	}
	e, err := s.log.Get(s.id, index)
	if errors.Is(err, wal.ErrNotFound) {
		if at, ok := s.mark(); ok && at.Applied == index && index > 1 {
			*l = raft.Log{Index: index, Term: at.Term, Type: typeGone}
			return nil
		}
		return raft.ErrLogNotFound
	}
	if err != nil {
		s.fail(err)
		return err
	}
	*l = raft.Log{Index: e.Index, Term: e.Term, Type: raft.LogType(e.Type), Data: e.Data}
	if s.reading.Load() {
		s.configurations.note(l)
	}
	return nil
}

// has tells whether the log holds the entry of this index and term, or has let go of it
// behind a flush: then everything that a snapshot up to it says is here.
func (s *logStore) has(index, term uint64) bool {
	if index <= s.log.Base(s.id) {
		return true
	}
	e, err := s.log.Get(s.id, index)
	return err == nil && e.Term == term
}

// goOn makes a request that follows on an entry which the log has let go of follow on that of
// the last flush: all up to there is committed and here. Raft can't compare the former, and
// would refuse the request for ever: it comes again and again if this node stored what came
// behind an installed state, and the leader was never told.
func (s *logStore) goOn(r *raft.AppendEntriesRequest) {
	if r.PrevLogEntry == 0 || r.PrevLogEntry > s.log.Base(s.id) {
		return
	}
	at, ok := s.mark()
	if !ok || r.PrevLogEntry >= at.Applied {
		return
	}
	r.Entries = r.Entries[min(at.Applied-r.PrevLogEntry, uint64(len(r.Entries))):]
	r.PrevLogEntry, r.PrevLogTerm = at.Applied, at.Term
	// Raft would take all that is here for committed up to that, also what was never compared.
	r.LeaderCommitIndex = min(r.LeaderCommitIndex, at.Applied+uint64(len(r.Entries)))
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore. The entries are durable when it returns, or they
// have their place in the log and are among the late ones.
func (s *logStore) StoreLogs(ls []*raft.Log) error {
	entries := make([]wal.Entry, len(ls))
	for i, l := range ls {
		entries[i] = wal.Entry{Stream: s.id, Index: l.Index, Term: l.Term, Type: uint8(l.Type), Data: l.Data}
	}
	done := func(error) {}
	if s.tap != nil {
		done = s.tap.stored(uint64(s.id), ls)
	}
	p, err := s.log.Begin(entries)
	if err == nil && s.early != nil && s.early(ls) {
		s.late.add(ls[0].Index, ls[len(ls)-1].Index, p, func(err error) { done(err); _ = s.check(err) })
		return nil
	}
	if err == nil {
		err = errors.Join(p.Wait(), s.late.wait(math.MaxUint64)) // in the log's order
	}
	done(err)
	if err == nil {
		s.configurations.note(ls...)
	}
	return s.check(err)
}

// DeleteRange implements raft.LogStore. A range up to the last flush at most is a front that the
// flush has made superfluous, and one that ends behind it a tail that a new leader overrules.
// Where the log ends tells nothing: Raft chooses a front so that TrailingLogs are left of the log
// as it is then, and before the front is cut, by another goroutine, all of them may be overruled.
func (s *logStore) DeleteRange(first, last uint64) error {
	if s.tap == nil {
		return s.check(s.deleteRange(first, last))
	}
	done := s.tap.deleted(uint64(s.id), first, last)
	err := s.deleteRange(first, last)
	done(err)
	return s.check(err)
}

func (s *logStore) deleteRange(first, last uint64) error {
	if err := s.late.wait(math.MaxUint64); err != nil {
		return err
	}
	if at, ok := s.mark(); ok && last <= at.Applied {
		return s.log.TruncateFront(s.id, last)
	}
	s.configurations.cut(first)
	return s.log.TruncateBack(s.id, first)
}

// Set implements raft.StableStore. What is there already is not written again: a heartbeat that
// meets a follower about to stand for election sets the term that it has, and must not be at
// it for as long as the disk takes, while the main goroutine sets the next one.
func (s *logStore) Set(key, val []byte) error {
	if v, ok := s.log.Value(s.id, string(key)); ok && bytes.Equal(v, val) {
		return nil
	}
	vals := []wal.Value{{Key: string(key), Val: val}}
	if string(key) == keyLastVoteTerm {
		// Raft names the candidate in a second step. The one of an earlier term must not stand
		// there after a crash between the two: it would get its vote again, and, since Raft takes
		// it for a vote that was given, with a log that lacks what is committed.
		vals = append(vals, wal.Value{Key: keyLastVoteCand, Val: []byte(nobody)})
	}
	return s.check(s.log.SetValues(s.id, vals...))
}

// Get implements raft.StableStore.
func (s *logStore) Get(key []byte) ([]byte, error) {
	v, ok := s.log.Value(s.id, string(key))
	if !ok {
		return nil, errNotFound
	}
	return v, nil
}

// SetUint64 implements raft.StableStore.
func (s *logStore) SetUint64(key []byte, val uint64) error {
	return s.Set(key, binary.LittleEndian.AppendUint64(nil, val))
}

// GetUint64 implements raft.StableStore.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, errMessage
	}
	return binary.LittleEndian.Uint64(v), nil
}

func (s *logStore) check(err error) error {
	if err != nil && !errors.Is(err, wal.ErrClosed) {
		s.fail(err)
	}
	return err
}
