package shard

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestWatchers: each series has the watches that it was given, and no others, however
// links are used again.
func TestWatchers(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var l watchers
	all := []*Watch{{}, {patient: true}, {patient: true}, {patient: true}}
	want := map[uint32]map[*Watch]bool{}
	for range 10_000 {
		no, w := rng.Uint32N(20), all[rng.IntN(len(all))]
		switch {
		case rng.IntN(10) == 0:
			delete(want, no)
			l.remove(no, nil)
		case want[no][w]:
			delete(want[no], w)
			l.remove(no, w)
		default:
			if want[no] == nil {
				want[no] = map[*Watch]bool{}
			}
			want[no][w] = true
			l.add(no, w)
		}
		for no := range uint32(25) {
			n, in := 0, unwatched
			for w := range want[no] {
				in = max(in, w.interest())
			}
			if got := l.interest(no); got != in {
				t.Fatalf("series %d is watched %d, want %d", no, got, in)
			}
			for i := l.of(no); i != 0; i = l.links[i].next {
				if n++; !want[no][l.links[i].w] || l.links[i].id != 0 {
					t.Fatalf("series %d: %+v", no, l.links[i])
				}
			}
			if n != len(want[no]) {
				t.Fatalf("series %d has %d watches, want %d", no, n, len(want[no]))
			}
		}
	}
	if len(l.links) > 20*len(all)+1 {
		t.Errorf("%d links", len(l.links))
	}
}

type countingSink struct {
	Sink
	n int
}

func (s *countingSink) Match(n int) bool {
	s.n += n
	return true
}

// TestWatchOfChurn: what a watch knows is as much as lives, however many series come and go.
func TestWatchOfChurn(t *testing.T) {
	const living = 100
	h, sink := &head{}, &countingSink{}
	w := &Watch{sink: sink}
	var all []*series
	for no := range uint32(20_000) {
		x := &series{no: no}
		if sink.Match(1) {
			h.watchLocked(x, w)
		}
		if all = append(all, x); len(all) > living {
			h.unmarkLocked(all[0])
			h.releaseLocked()
			all = all[1:]
		}
	}
	if most := 2*living + minWatched + 2; len(w.series) > most || w.living != living || sink.n != living {
		t.Errorf("it knows %d series, at most %d wanted; %d are watched, %d match", len(w.series), most, w.living, sink.n)
	}
	for _, x := range all {
		if !slices.Contains(w.series, x.no) {
			t.Errorf("series %d is not known", x.no)
		}
	}
}
