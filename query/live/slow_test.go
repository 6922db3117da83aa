package live_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/strandline-db/strandline/query/live"
)

// TestSlowSubscriberOfFailures: who falls behind where there are but failures is told what it missed.
func TestSlowSubscriberOfFailures(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1, Ring: 8, Horizon: -1})
	const query = `label_replace(m, "s", "", "s", ".*")` // fails for two series
	fast, slow := r.subscribe(live.Request{Query: query}), r.subscribe(live.Request{Query: query})
	slow.strict = false
	now := start.UnixMilli()
	steps := func(n int) {
		for range n {
			now += 1000
			r.clock.Advance(time.Second)
			fast.until(now)
		}
	}
	r.append(gauge("a", now, 1))
	steps(1)
	slow.until(now)
	steps(3)
	r.append(gauge("b", now, 1))
	steps(12)
	slow.until(now)
	want := []live.Dropped{{Count: 14, From: start.UnixMilli() + 2000, To: now - 1000}, {Count: 1, From: now, To: now}}
	if fmt.Sprint(slow.drops) != fmt.Sprint(want) || slow.errs != 1 {
		t.Errorf("dropped %v, want %v; %d failures", slow.drops, want, slow.errs)
	}
}

// TestSlowSubscriberOfCorrections: who falls behind a ring that has but corrections gets them, and
// the newest step.
func TestSlowSubscriberOfCorrections(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1, Ring: 4})
	req := live.Request{Query: `m`, Step: 5 * time.Second}
	fast, slow := r.subscribe(req), r.subscribe(req)
	slow.strict = false
	now := start.UnixMilli()
	step := func() {
		now += 5000
		r.append(gauge("a", now, float64(now)))
		r.clock.Advance(5 * time.Second)
		fast.until(now)
	}
	for range 8 {
		step()
		slow.until(now)
	}
	given := now
	for range 3 {
		step()
	}
	r.append(gauge("b", start.UnixMilli()+5000, 7)) // changes the first four steps
	r.append(gauge("b", given-8000, 7))             // and the others
	r.clock.Advance(time.Second)
	fast.settle()
	slow.until(now)
	if want := []live.Dropped{{Count: 2, From: given + 5000, To: now - 5000}}; fmt.Sprint(slow.drops) != fmt.Sprint(want) {
		t.Errorf("dropped %v, want %v", slow.drops, want)
	}
	slow.settle()
}

// TestSlowResume: of what is sent again to who comes back, no correction of before comes, also
// where the ring moves on before it is taken.
func TestSlowResume(t *testing.T) {
	for _, polls := range []int{0, 1} { // before the ring moves on
		r := newRig(t, live.Options{Delay: -1, Ring: 8})
		fast, c := r.subscribe(live.Request{Query: `m`}), r.subscribe(live.Request{Query: `m`})
		c.strict = false
		now := start.UnixMilli()
		step := func() {
			now += 1000
			r.append(gauge("a", now, float64(now)))
			r.clock.Advance(time.Second)
			fast.until(now)
		}
		for range 5 {
			step()
			c.until(now)
		}
		c.Close()
		step()
		r.append(gauge("b", c.lastT, 7))
		step()
		r.clock.Advance(10 * time.Millisecond)
		fresh := r.subscribe(live.Request{Query: `m`, After: c.lastT})
		c.Subscription, c.names, c.stale = fresh.Subscription, fresh.names, fresh.stale
		for range polls {
			for _, ev := range c.Poll(nil) {
				c.take(ev)
			}
		}
		for range 20 {
			step()
		}
		c.until(now)
		c.settle()
	}
}
