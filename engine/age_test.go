package engine

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

const year = 365 * 24 * time.Hour

// TestAgeClock: a clock that is set is believed once it has gone on for a day; until then
// nothing grows old sooner than by what has passed, nor sooner than by that clock.
func TestAgeClock(t *testing.T) {
	for name, set := range map[string]time.Duration{"ahead": year, "back": -year} {
		t.Run(name, func(t *testing.T) {
			c := newAgeClock(nil, start)
			judge := func(passed, set time.Duration, want time.Time, wantWaits bool) {
				t.Helper()
				seen := start.Add(passed)
				at, waits, _, _ := c.judge(seen, seen.Add(set))
				if !at.Equal(want) || waits != wantWaits {
					t.Fatalf("after %s: %s, waits %v; want %s, %v", passed, at, waits, want, wantWaits)
				}
			}
			judge(time.Minute, 0, start.Add(time.Minute), false)
			judge(2*time.Minute, time.Hour, start.Add(time.Hour+2*time.Minute), false) // little is believed
			judge(3*time.Minute, 0, start.Add(3*time.Minute), false)
			for h := range 23 {
				passed := time.Duration(h+1) * time.Hour
				judge(passed, set, start.Add(passed+min(0, set)), true)
			}
			judge(24*time.Hour, 0, start.Add(24*time.Hour), false) // it has come back: the wait begins anew
			for h := range 23 {
				passed := time.Duration(h+25) * time.Hour
				judge(passed, set, start.Add(passed+min(0, set)), true)
			}
			judge(48*time.Hour, set, start.Add(48*time.Hour+set), false)
		})
	}
}

// TestClockLeaps: after a restart with a clock that shows a year more, what is not too old
// by the time before is kept and taken in for a day of running, over further restarts, and
// then goes. Samples that come with the new time change nothing about it.
func TestClockLeaps(t *testing.T) {
	f := newFixture(t, Options{Retention: 30 * 24 * time.Hour})
	m, old := labels.FromStrings("__name__", "m"), start.UnixMilli()
	put := func(at int64, rejected int) {
		t.Helper()
		if res := f.append(floats(m, []int64{at}, []float64{1})); len(res.Rejected) != rejected {
			t.Fatalf("append: %+v", res)
		}
	}
	maintain := func() {
		t.Helper()
		if err := f.Maintain(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	has := func(want int) {
		t.Helper()
		if got := len(f.read(labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"))[m.String()].T); got != want {
			t.Fatalf("%d samples, want %d", got, want)
		}
	}
	put(old, 0)
	f.flush()
	maintain()
	f.close()

	f.clock.Advance(year)
	for i := range 3 {
		f.open()
		put(old+int64(i)+1, 0)
		put(f.clock.Now().UnixMilli(), 0)
		maintain()
		f.clock.Advance(7 * time.Hour)
		maintain()
		f.flush()
		has(1 + 2*(i+1))
		f.close()
	}
	f.open()
	f.clock.Advance(4 * time.Hour)
	maintain()
	f.flush()
	has(3)
	put(old+100, 1)
}
