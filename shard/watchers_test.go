package shard

import (
	"math/rand/v2"
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
