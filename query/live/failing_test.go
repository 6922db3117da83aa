package live_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"

	"github.com/strandline-db/strandline/query/live"
)

// TestOneFails: of steps that are evaluated together those that fail are told as failed, and no
// other, whether they are corrected or of a backfill.
func TestOneFails(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1})
	const query = `label_replace(m, "s", "", "s", ".*")` // fails for two series
	at := func(i int64) int64 { return start.UnixMilli() + i*1000 }
	r.append(gauge("a", at(0), 1))
	c := r.subscribe(live.Request{Query: query})
	for i := range int64(8) {
		r.clock.Advance(time.Second)
		c.until(at(i + 1))
	}
	r.append(gauge("a", at(2), 2))
	r.append(gauge("b", at(5), 1))
	r.clock.Advance(time.Second)
	c.until(at(9))
	other := r.beside()
	defer other.leave()
	late := other.subscribe(live.Request{Query: query, Backfill: 8 * time.Second})
	late.strict = false
	late.until(at(9))
	for i := int64(1); i < 5; i++ {
		c.check(at(i))
		late.check(at(i))
	}
	want := []live.Dropped{{Count: 1, From: at(5), To: at(5)}, {Count: 2, From: at(6), To: at(7)}, {Count: 2, From: at(8), To: at(9)}}
	if c.errs != 5 || late.errs != len(want) || fmt.Sprint(late.drops) != fmt.Sprint(want) {
		t.Errorf("%d failures were told, and %d of the backfill, of which was dropped: %v", c.errs, late.errs, late.drops)
	}
}

// TestOneFailsInBackfill: a step that fails takes no other of its backfill with it.
func TestOneFailsInBackfill(t *testing.T) {
	r := newRig(t, live.Options{Delay: -1})
	at := func(i int64) int64 { return start.UnixMilli() + i*1000 }
	r.append(gauge("a", at(-30), 1))
	r.append(gauge("a", at(-15), 1))
	for i := int64(-20); i < 0; i += 7 {
		r.append(gauge("b", at(i), 1))
		r.append(gauge("b", at(i)+500, math.Float64frombits(value.StaleNaN)))
	}
	c := r.subscribe(live.Request{Query: `label_replace(m, "s", "", "s", ".*")`, Backfill: 25 * time.Second})
	c.strict = false
	c.until(at(0))
	for i := int64(-25); i <= 0; i++ {
		c.check(at(i))
	}
	want := []live.Dropped{{Count: 1, From: at(-20), To: at(-20)}, {Count: 1, From: at(-13), To: at(-13)}, {Count: 1, From: at(-6), To: at(-6)}}
	if c.errs != 3 || fmt.Sprint(c.drops) != fmt.Sprint(want) {
		t.Errorf("%d failures, dropped %v, want %v", c.errs, c.drops, want)
	}
}
