package live

import (
	"math/rand/v2"
	"testing"
)

// TestRing: a ring holds the newest events, as many as its bounds allow, however it has
// grown until then.
func TestRing(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 4))
		most := 1 + rng.IntN(100)
		r := newRing(most, 1+rng.IntN(300))
		var all []*Step // that of the event seq is at seq-1
		for range rng.IntN(500) {
			s := &Step{Values: make([]Value, rng.IntN(20))}
			r.push(entry{step: s})
			all = append(all, s)
			values, held := 0, int(r.head-r.tail)
			for seq := r.tail; seq < r.head; seq++ {
				if r.get(seq).step != all[seq-1] {
					t.Fatalf("seed %d: event %d is another", seed, seq)
				}
				values += 1 + len(all[seq-1].Values)
			}
			older := int(r.tail) - 2 // whether it had to go
			fits := older >= 0 && held < most && values+1+len(all[older].Values) <= r.maxValues
			if int(r.head) != len(all)+1 || held == 0 || held > most || values != r.values || held > 1 && values > r.maxValues || fits {
				t.Fatalf("seed %d: after %d events %+v", seed, len(all), r)
			}
			if room := len(r.at); room > max(leastRoom, 2*len(all)) || room > most {
				t.Fatalf("seed %d: room for %d after %d events", seed, room, len(all))
			}
		}
	}
}

// BenchmarkRing appends to a ring that is full.
func BenchmarkRing(b *testing.B) {
	r := newRing(256*samplesRing, 200_000)
	e := entry{step: &Step{Values: make([]Value, 1)}}
	for range r.maxEvents {
		r.push(e)
	}
	b.ReportAllocs()
	for b.Loop() {
		r.push(e)
	}
}
