package shard

import (
	"testing"
)

// TestBackfillHistograms: late histograms are stored without looking through all of them for
// each, in order of time, against it, and at random, below a newest histogram or a float.
func TestBackfillHistograms(t *testing.T) {
	const n = 100_000
	for name, at := range map[string]func(i int64) int64{
		"ascending":  func(i int64) int64 { return i },
		"descending": func(i int64) int64 { return n - 1 - i },
		"scattered":  func(i int64) int64 { return i * 7919 % n },
	} {
		for _, below := range []string{"histogram", "float"} {
			t.Run(name+" below a "+below, func(t *testing.T) {
				h := newHead()
				s := h.insertLocked(1, "k")
				newest := blob{t: 2 * n, data: []byte("newest")}
				if below == "float" {
					s.addFloat(&h.mem, newest.t, 1, 0)
				} else {
					h.addBlobLocked(s, newest, false)
				}
				data := []byte("old")
				for range 2 { // and again, as a sender does that got no answer
					for i := range int64(n) {
						h.addBlobLocked(s, blob{t: at(i), data: data}, false)
					}
				}
				h.addBlobLocked(s, blob{t: n / 2, data: []byte("another")}, false)
				if c := h.mu.counts; c.Duplicates != n || c.Overwritten != 1 {
					t.Errorf("%d duplicates and %d overwritten", c.Duplicates, c.Overwritten)
				}
				if !s.active.dropHist(n/2) || s.active.dropHist(n/2) || !s.active.dropHist(n/3) {
					t.Error("what a float replaces is not found")
				}
				h.addBlobLocked(s, blob{t: n / 3, data: data}, false)
				h.addBlobLocked(s, blob{t: n / 4, data: data}, false)
				if c := h.mu.counts; c.Duplicates != n+1 || c.Overwritten != 1 {
					t.Errorf("after that %d duplicates and %d overwritten", c.Duplicates, c.Overwritten)
				}
			})
		}
	}
}
