package cluster

import (
	"testing"

	"github.com/hashicorp/raft"

	"github.com/strandline-db/strandline/engine"
	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestFrontUpToTheEnd: Raft chooses the front that a flush has made superfluous by where the log
// ends then. When a new leader has overruled all above the flush before the front is cut, that
// reaches the end of the log, and is no tail: the log goes on behind the flush.
func TestFrontUpToTheEnd(t *testing.T) {
	disk := vfs.NewMem()
	log, err := wal.Open("log", &wal.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	s := &logStore{log: log, id: 1, fail: func(err error) { t.Error(err) }, mark: func() (engine.Mark, bool) { return engine.Mark{Applied: 3, Term: 1}, true }}
	store := func(index, term uint64) {
		t.Helper()
		if err := s.StoreLog(&raft.Log{Index: index, Term: term, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(5) {
		store(i+1, 1)
	}
	if err := s.DeleteRange(4, 5); err != nil { // the tail, while the flush up to 3 ends
		t.Fatal(err)
	}
	if err := s.DeleteRange(1, 3); err != nil { // the front, with 5-2 entries as Raft saw it
		t.Fatal(err)
	}
	if base, last := log.Base(1), log.Last(1); base != 3 || last != 3 {
		t.Errorf("the log has the entries behind %d, up to %d", base, last)
	}
	store(4, 2)
	if err := s.DeleteRange(4, 4); err != nil { // all that is left is overruled, too
		t.Fatal(err)
	}
	store(4, 3)
	var l raft.Log
	if err := s.GetLog(4, &l); err != nil || l.Term != 3 {
		t.Errorf("entry 4 is of term %d, %v", l.Term, err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if log, err = wal.Open("log", &wal.Options{FS: disk}); err != nil {
		t.Fatal(err)
	}
	if base, last := log.Base(1), log.Last(1); base != 3 || last != 4 {
		t.Errorf("the log is found with the entries behind %d, up to %d", base, last)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}
