package wal

import (
	"testing"
	"time"
)

// TestPacer: what comes now and then never waits; what comes without end is held to the
// pace, whatever it asks for.
func TestPacer(t *testing.T) {
	const pace = 4 * time.Millisecond
	now := time.Unix(1000, 0)
	var rare pacer
	for range 1000 {
		if w := rare.take(now, pace); w != 0 {
			t.Fatalf("a rare write waits for %v", w)
		}
		now = now.Add(pace)
	}
	var busy pacer
	begin, syncs := now, 0
	for now.Sub(begin) < time.Second {
		now = now.Add(busy.take(now, pace) + 100*time.Microsecond)
		syncs++
	}
	if most := int(time.Second/pace) + paceBurst + 1; syncs > most || syncs < most-10 {
		t.Fatalf("%d syncs in a second, want about %d", syncs, most)
	}
}
