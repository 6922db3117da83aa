package cluster

import (
	"math/rand/v2"
	"testing"

	"github.com/strandline-db/strandline/wal"
	"github.com/strandline-db/strandline/wal/vfs"
)

// TestVoteCrash: after a crash between the term of a vote and the name of the candidate the
// vote is nobody's, least of all that of the candidate of an earlier term: Raft gives a vote
// that it finds again without a look at the candidate's log.
func TestVoteCrash(t *testing.T) {
	disk := vfs.NewMem()
	log, err := wal.Open("log", &wal.Options{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	s := &logStore{log: log, id: 1, fail: func(err error) { t.Error(err) }}
	vote := func(term uint64, candidate string) {
		if err := s.SetUint64([]byte(keyLastVoteTerm), term); err != nil {
			t.Fatal(err)
		}
		if candidate == "" {
			return
		}
		if err := s.Set([]byte(keyLastVoteCand), []byte(candidate)); err != nil {
			t.Fatal(err)
		}
	}
	vote(5, "n1")
	vote(7, "")
	after, err := wal.Open("log", &wal.Options{FS: disk.CrashClone(rand.New(rand.NewPCG(1, 1)), 0)})
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	term, err := (&logStore{log: after, id: 1}).GetUint64([]byte(keyLastVoteTerm))
	if cand, _ := after.Value(1, keyLastVoteCand); err != nil || term != 7 || string(cand) == "n1" || len(cand) == 0 {
		t.Errorf("the vote of term %d is that of %q, %v", term, cand, err)
	}
	vote(7, "n2")
	if cand, _ := log.Value(1, keyLastVoteCand); string(cand) != "n2" {
		t.Errorf("the vote is that of %q", cand)
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}
