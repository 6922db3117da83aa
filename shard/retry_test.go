package shard

import "testing"

// TestLargeRetry: a retry of very many samples of one series leaves nothing behind, and
// does not decode all of them for each.
func TestLargeRetry(t *testing.T) {
	const n = 300_000
	var h headMem
	s := newSeries(1, "k")
	for i := range int64(n) {
		if out := s.addFloat(&h, i, float64(i)*1.7, 0); out != stored {
			t.Fatalf("sample %d: %v", i, out)
		}
	}
	before := h.bytes
	for i := range int64(n) {
		if out := s.addFloat(&h, i, float64(i)*1.7, 0); out != duplicate {
			t.Fatalf("sample %d again: %v", i, out)
		}
	}
	if h.bytes != before || s.active.late != nil {
		t.Errorf("%d bytes before the retry, %d after it, late samples: %v", before, h.bytes, s.active.late)
	}
	// What is sealed after that is looked for too.
	for i := range int64(2 * tailCap) {
		s.addFloat(&h, n+i, 1, 0)
	}
	if out := s.addFloat(&h, n+1, 2, 0); out != overwritten {
		t.Errorf("a new value: %v", out)
	}
	if out := s.addFloat(&h, n, 1, 0); out != duplicate {
		t.Errorf("an old one: %v", out)
	}
}
